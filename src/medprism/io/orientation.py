"""Axis order: from the file's to RAS+ (first axis to the right, second to the front, third up) and back.

Only axes are exchanged and flipped, no value is interpolated: an oblique scan stays oblique.
"""

from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray


def axes_of(affine: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How to turn an array to RAS+.

    Args:
        affine: (4, 4) voxel of the file -> world.

    Returns:
        For each of right, front, up: the file's axis that runs closest to it, and whether it runs against it.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best = max(permutations(range(3)), key=lambda order: sum(abs(directions[w, order[w]]) for w in range(3)))
    x, y, z = best
    return (x, y, z), (bool(directions[0, x] < 0), bool(directions[1, y] < 0), bool(directions[2, z] < 0))


def to_ras(array: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Turn an array (X, Y, Z) in file order and its affine to RAS+; the array is contiguous."""
    order, flip = axes_of(affine)
    turned = affine.copy()
    for world, axis in enumerate(order):
        turned[:3, world] = -affine[:3, axis] if flip[world] else affine[:3, axis]
        if flip[world]:
            turned[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
    return np.ascontiguousarray(_flipped(array.transpose(order), flip)), turned


def from_ras(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Turn an array (X, Y, Z) in RAS+ back to the order of the file with this affine: the inverse of `to_ras`."""
    order, flip = axes_of(affine)
    return _flipped(array, flip).transpose([order.index(axis) for axis in range(3)])


def _flipped(array: NDArray[Any], flip: tuple[bool, bool, bool]) -> NDArray[Any]:
    return array[tuple(slice(None, None, -1 if backwards else 1) for backwards in flip)]
