"""Geometry of scans: the grids of `medprism.io.grid`, and moving an array from one to another in one world space."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medprism.io.grid import Grid, Relation, distance, overlap, relation, require_same_space, respaced

__all__ = [
    "Grid",
    "Relation",
    "distance",
    "inside",
    "overlap",
    "relation",
    "require_same_space",
    "resample",
    "respaced",
    "target_to_source",
]

# Half width of a Gaussian at half height, squared, over its variance: FWHM² = 8 ln 2 · σ².
FWHM2 = 8 * np.log(2)


def resample(array: NDArray[Any], source: Grid, target: Grid, *, order: int = 1, fill: float = 0.0) -> NDArray[Any]:
    """Sample an array at the voxel centres of another grid.

    Where the target is coarser, a continuous image is first blurred to the target's resolution: each voxel is taken
    for a Gaussian whose full width at half maximum is the voxel's side, and the blur adds what the source lacks
    (Cardoso et al. 2015, "Scale factor point spread function matching", MICCAI). A centre within the source's field of
    view, thus up to half a voxel beyond its outermost centres, gets the value of the nearest edge; one outside it gets
    `fill`.

    Args:
        array: (X, Y, Z) on `source`.
        source: Where the array is.
        target: Where it is wanted.
        order: 0 nearest (labels, masks: no new values, type kept), 1 linear, 3 cubic spline.
        fill: Value outside the field of view, e.g. −1024 for CT.

    Returns:
        Array of the target's shape: the type of the input for order 0, else float32. A copy if the grids are the same.

    Raises:
        ValueError: The array is not on `source`, or another order.
    """
    if array.shape != source.shape:
        msg = f"expected an array of shape {source.shape}, got {array.shape}"
        raise ValueError(msg)
    if order not in (0, 1, 3):
        msg = f"order must be 0, 1 or 3, got {order}"
        raise ValueError(msg)
    values = array if order == 0 else array.astype(np.float32, copy=False)
    if relation(source, target) == "same_grid":
        return values.copy()
    step = target_to_source(source, target)
    variance = np.maximum((step[:3, :3] ** 2).sum(axis=1) - 1, 0) / FWHM2
    sigma = np.zeros(3) if order == 0 else np.sqrt(variance)
    if order < 3 and (_off_diagonal(step) < 1e-6).all():
        out = _along_axes(values, step, target.shape, sigma, order)
    else:
        out = _anywhere(values, step, target.shape, sigma, order)
    out[~inside(source, target)] = fill
    return out


def inside(source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Which voxel centres of `target` lie in the field of view of `source`: bool (X, Y, Z) on `target`."""
    step = target_to_source(source, target)
    # A term that is zero is left out, so that parallel grids cost three short vectors, not three volumes.
    index = np.ogrid[tuple(slice(n) for n in target.shape)]
    within = np.ones(target.shape, dtype=bool)
    for axis, size in enumerate(source.shape):
        terms = [step[axis, k] * index[k] for k in range(3) if abs(step[axis, k]) * target.shape[k] > 1e-6]
        position = step[axis, 3] + sum(terms, np.zeros((1, 1, 1)))
        within &= (position >= -0.5 - 1e-4) & (position <= size - 0.5 + 1e-4)
    return within


def target_to_source(source: Grid, target: Grid) -> NDArray[np.float64]:
    """(4, 4) matrix from voxel indices of `target` to those of `source`."""
    return np.asarray(np.linalg.solve(source.affine, target.affine))


def _off_diagonal(step: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(step[:3, :3] - np.diag(np.diag(step[:3, :3])))


def _along_axes(
    array: NDArray[Any], step: NDArray[np.float64], shape: tuple[int, int, int], sigma: NDArray[np.float64], order: int
) -> NDArray[Any]:
    """Blur and sample one axis after the other, the one that shrinks most first: for grids with parallel axes."""
    for axis in sorted(range(3), key=lambda k: shape[k] / array.shape[k]):
        # Rounding keeps whole steps whole: without it, noise of 1e-12 turns ties of nearest and exact hits around.
        position = np.round(step[axis, axis] * np.arange(shape[axis]) + step[axis, 3], 6)
        last = array.shape[axis] - 1
        if order == 0:
            array = array.take(np.clip(np.floor(position + 0.5), 0, last).astype(int), axis=axis)
            continue
        if sigma[axis] > 0:
            array = ndimage.gaussian_filter1d(array, sigma[axis], axis=axis, mode="nearest")
        position = np.clip(position, 0, last)
        low = np.minimum(position.astype(int), max(last - 1, 0))
        weight = (position - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
        lower, upper = array.take(low, axis=axis), array.take(np.minimum(low + 1, last), axis=axis)
        array = lower * (1 - weight) + upper * weight
    return array


def _anywhere(
    array: NDArray[Any], step: NDArray[np.float64], shape: tuple[int, int, int], sigma: NDArray[np.float64], order: int
) -> NDArray[Any]:
    """Sample at rotated positions, or with splines."""
    if sigma.any():
        array = ndimage.gaussian_filter(array, sigma, mode="nearest")
    plain = array.astype(np.uint8) if array.dtype == bool else array
    out = ndimage.affine_transform(plain, step[:3, :3], step[:3, 3], shape, order=order, mode="nearest")
    return np.asarray(out, dtype=array.dtype)
