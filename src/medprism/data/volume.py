"""The scans of one subject as one normalised array on one grid: what training and inference alike start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medprism.data.intensity import Normaliser, Scale
from medprism.data.recipe import Recipe
from medprism.errors import UserError
from medprism.io.geometry import inside, resample
from medprism.io.grid import Grid, require_same_space, respaced
from medprism.io.nifti import Scan, check_informative

Box = tuple[tuple[int, int, int], tuple[int, int, int]]  # first voxel, shape

AIR = {"HU": -1024.0}
"""Intensity of nothing by unit, 0 for all others. Scanners write −2000 or −3024 HU outside their field of view."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One subject, prepared.

    Attributes:
        images: (M, X, Y, Z) float32, normalised; zero where the scan is absent.
        foreground: (M, X, Y, Z) bool, each scan's own foreground within its own field of view.
        present: (M,) bool, True = this scan exists.
        grid: Where the voxels are.
        scales: Modality -> the normalisation of its scan; present ones only, in the order of the channels.
        background: (M,) float32, the normalised value of air and of what lies outside a scan's field of view; 0 where
            the scan is absent.
    """

    images: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    present: NDArray[np.bool_]
    grid: Grid
    scales: dict[str, Scale]
    background: NDArray[np.float32]


def assemble(scans: Mapping[str, Scan], recipe: Recipe) -> Volume:
    """Resample, crop and normalise the scans of one subject.

    All scans go to the grid of the reference scan, with the recipe's spacing, within the box that all of them see; then
    everything is cropped to the union of the foregrounds. Each scan is normalised by its own foreground.

    Args:
        scans: Canonical modality -> scan; absent ones are absent keys.
        recipe: How to prepare.

    Returns:
        The subject on one grid.

    Raises:
        UserError: No scan, a constant one, one without foreground, or scans that do not share a world space.
    """
    if not scans or not set(scans) <= set(recipe.modalities):
        raise UserError(f"expected scans among {', '.join(recipe.modalities)}, got {', '.join(scans) or 'none'}")
    present = [modality for modality in recipe.modalities if modality in scans]
    names = {modality: _name(modality, scans[modality]) for modality in present}
    grid = _common_grid(scans, recipe, names)
    arrays, masks = {}, {}
    for modality in present:
        arrays[modality] = _on_grid(scans[modality], grid, recipe.normalisers[modality])
        mask = recipe.normalisers[modality].foreground_mask(arrays[modality], name=names[modality])
        masks[modality] = mask & inside(scans[modality].grid, grid)
    start, shape = _box(np.logical_or.reduce(list(masks.values())), recipe.margin)
    window = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
    channels = len(recipe.modalities)
    images, foreground = np.zeros((channels, *shape), np.float32), np.zeros((channels, *shape), np.bool_)
    background, scales = np.zeros(channels, np.float32), {}
    for channel, modality in enumerate(recipe.modalities):
        if modality in scans:
            array, mask, normaliser = arrays[modality], masks[modality], recipe.normalisers[modality]
            scale = scales[modality] = normaliser.fit(array, mask, name=names[modality])
            images[channel], foreground[channel] = scale.apply(array[window]), mask[window]
            background[channel] = scale.apply(np.array(air(normaliser)))
    here = np.array([modality in scans for modality in recipe.modalities])
    return Volume(images, foreground, here, grid.crop(start, shape), scales, background)


def label_on(grid: Grid, label: Scan) -> NDArray[Any]:
    """A label map on the grid of a prepared subject, (X, Y, Z); nearest voxel, 0 outside its field of view.

    Raises:
        UserError: The label lies elsewhere in the world.
    """
    require_same_space(label.grid, grid, name_a=_name("the label", label), name_b="the prepared scans")
    on_grid: NDArray[Any] = resample(label.array, label.grid, grid, order=0, fill=0)
    return on_grid


def _common_grid(scans: Mapping[str, Scan], recipe: Recipe, names: Mapping[str, str]) -> Grid:
    """The reference grid, respaced, cut to the box of the voxels that every scan sees."""
    reference = recipe.reference_of(list(scans))
    for modality in names:
        check_informative(scans[modality])
        require_same_space(scans[reference].grid, scans[modality].grid, name_a=names[reference], name_b=names[modality])
    grid = scans[reference].grid
    if recipe.spacing is not None:
        grid = respaced(grid, recipe.spacing)
    common = np.logical_and.reduce([inside(scans[modality].grid, grid) for modality in names])
    if not common.any():
        raise UserError(
            f"expected scans with a common field of view, got none for {' and '.join(names.values())}; "
            "leave one of them out or register them"
        )
    return grid.crop(*_box(common, 0))


def _on_grid(scan: Scan, grid: Grid, normaliser: Normaliser) -> NDArray[np.float32]:
    """The scan on a grid, in its own unit, with air beyond its field of view."""
    nothing = air(normaliser)
    array = np.maximum(scan.array, np.float32(nothing)) if normaliser.unit in AIR else scan.array
    on_grid: NDArray[np.float32] = resample(array, scan.grid, grid, order=1, fill=nothing)
    return on_grid


def air(normaliser: Normaliser) -> float:
    """Intensity of nothing: in air, and outside a scan's field of view."""
    return AIR.get(normaliser.unit, 0.0)


def _name(modality: str, scan: Scan) -> str:
    """A scan in messages."""
    return modality if scan.path is None else f"{modality} ({scan.path})"


def _box(mask: NDArray[np.bool_], margin: int) -> Box:
    """The smallest box around a mask that is not empty, with a margin, within the volume."""
    start, shape = [], []
    for axis, size in enumerate(mask.shape):
        (found,) = np.nonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = max(int(found[0]) - margin, 0), min(int(found[-1]) + margin, size - 1)
        start.append(first)
        shape.append(last - first + 1)
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])
