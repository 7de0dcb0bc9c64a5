"""Templates before a training: a grid around the cohort, begun as noise or as the mean of some of its scans."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch

from medprism.data.cache import Cache, Entry
from medprism.data.randomness import rng
from medprism.errors import UserError
from medprism.io.geometry import resample
from medprism.io.grid import Grid
from medprism.models.atlas import Size, covering_grid, head_grid
from medprism.models.templates import Templates, TemplatesConfig

logger = logging.getLogger(__name__)

MOST_VOXELS = 400_000_000
"""Of all templates together; with gradients and two moments they take 16 bytes each. The release has 71 million."""
MOST_SCANS = 64
"""Of a modality that go into a mean."""
SCATTERED = 3.0
"""Times the largest scan; a grid that is larger lies around scans that hardly lie over each other."""


def begun(config: TemplatesConfig, cache: Cache, patch: Size, seed: int) -> Templates:
    """The templates of all modalities of a cohort.

    Args:
        config: where, and as what they begin.
        cache: the cohort, of which training and validation subjects must lie on the grid.
        patch: sides of the crops in voxels, which may be larger than a scan.
        seed: of the noise, and of which scans are averaged.

    Raises:
        UserError: scans reach beyond the grid, or it would be too large.
    """
    training = cache.subjects("training")
    entries = [*training, *cache.subjects("validation")]
    fields = [reach(entry.grid, patch) for entry in entries]
    grid = head_grid(config.spacing) if config.grid == "head" else covering_grid(fields, config.spacing)
    _check_size(grid, fields, len(cache.modalities))
    templates = Templates(cache.modalities, grid, seed=seed, tolerance=config.tolerance)
    for entry, field in zip(entries, fields, strict=True):
        templates.check_cover(torch.tensor(field.affine)[None], field.shape, [entry.subject])
    if never := [m for place, m in enumerate(cache.modalities) if not any(entry.present[place] for entry in training)]:
        logger.warning("no training subject has %s: its template stays noise", " or ".join(never))
    if config.start == "mean":
        _average(templates, training, seed)
    return templates


def reach(grid: Grid, patch: Size) -> Grid:
    """The voxels that crops of a scan may hold: its own, and those around it where it is smaller than a crop."""
    x, y, z = (min((side - wanted) // 2, 0) for side, wanted in zip(grid.shape, patch, strict=True))
    i, j, k = (max(side, wanted) for side, wanted in zip(grid.shape, patch, strict=True))
    return grid.crop((x, y, z), (i, j, k))


def _check_size(grid: Grid, fields: Sequence[Grid], modalities: int) -> None:
    times = grid.volume / max(field.volume for field in fields)
    voxels = modalities * math.prod(grid.shape)
    if voxels > MOST_VOXELS:
        raise UserError(
            f"expected templates of at most {MOST_VOXELS / 1e6:.0f} million voxels in all, got {voxels / 1e6:.0f} "
            f"million, {times:.1f} times the largest scan for each modality; register the scans to one space, or raise "
            "brainmvp.templates.spacing"
        )
    if times > SCATTERED:
        logger.warning(
            "the templates' grid is %.1f times as large as the largest scan: scans of these persons hardly lie over "
            "each other, and a template of them means little; register them to one space",
            times,
        )


def _average(templates: Templates, entries: Sequence[Entry], seed: int) -> None:
    """Begin each template as the mean of up to `MOST_SCANS` scans; beyond a scan is the air that it has."""
    for place, name in enumerate(templates.modalities):
        having = [entry for entry in entries if entry.present[place]]
        order = rng(seed, "template", name).permutation(len(having))[:MOST_SCANS]
        total = np.zeros(templates.grid.shape, np.float32)
        for number in order:
            entry = having[number]
            air = float(entry.background[place])
            total += resample(entry.images()[place], entry.grid, templates.grid, fill=air)
        if len(order):
            templates.set(name, total / np.float32(len(order)), templates.grid)
