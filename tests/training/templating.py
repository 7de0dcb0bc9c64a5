"""A model with templates as pre-training leaves it, made by hand."""

from pathlib import Path

import torch

from medprism.data.cache import Cache
from medprism.io.grid import Grid
from medprism.models import NetworkConfig, Prism
from medprism.models.atlas import covering_grid
from medprism.models.folder import save_model
from medprism.models.templates import FOLDER, Templates
from medprism.training.card import common


def around(cache: Path, names: tuple[str, ...], spacing: float = 2.0, seed: int = 0) -> Templates:
    """Random templates of some modalities around all subjects of a cache."""
    grids = [Grid(entry.shape, entry.affine) for entry in Cache.open(cache).subjects()]
    templates = Templates(names, covering_grid(grids, spacing), seed=seed)
    templates.volumes.data *= 50  # the spread of a scan is 1, of fresh templates 0.01
    return templates


def template_run(cache: Path, out: Path, templates: Templates | None, network: NetworkConfig, **card) -> Path:
    """A run folder with a network of that shape, fresh, and templates, if any."""
    torch.manual_seed(0)
    opened = Cache.open(cache)
    prism = Prism(network, len(opened.modalities), (16, 16, 16), outputs=0)
    told = {**common(opened, prism, prism, {}), "task": "representation"}
    if templates is not None:
        told["templates"] = templates.identity
        templates.save(out / "model" / FOLDER, force=True)
    save_model(out / "model", prism, {**told, **card})
    return out
