"""Masks that grow, shrink and lose their holes: what scipy.ndimage makes, bit for bit, in a fraction of the time.

Preparing a brain of 1 mm spent more time in scipy's binary operations, which walk voxel by voxel, than in reading it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

IN_PLANE = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)
"""Neighbours in the first two axes only: labels each slice by itself."""


def eroded(mask: Mask, times: int) -> Mask:
    """(X, Y, Z) without its outermost `times` layers of voxels (6 neighbours); beyond the volume the mask goes on."""
    out = mask.copy()
    for _ in range(times):
        before = out.copy()
        for axis in range(3):
            here, there = ((np.s_[:],) * axis + (part,) for part in (np.s_[:-1], np.s_[1:]))
            out[here] &= before[there]
            out[there] &= before[here]
    return out


def dilated(mask: Mask, times: int) -> Mask:
    """(X, Y, Z) with `times` more layers of voxels (6 neighbours); beyond the volume there is nothing."""
    return ~eroded(~mask, times)


def majority(mask: Mask) -> Mask:
    """What at least 14 of the 27 voxels around each voxel say; at the edge voxels are repeated."""
    count = mask.astype(np.uint8)
    for axis in range(3):
        wide = np.pad(count, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before = (np.s_[:],) * axis
        count = wide[(*before, np.s_[:-2])] + wide[(*before, np.s_[1:-1])] + wide[(*before, np.s_[2:])]
    return count > 13


def filled(mask: Mask) -> Mask:
    """(X, Y, Z) with its holes: what is outside has a way to the side of the volume (6 neighbours)."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            outside[np.take(labels, end, axis)] = True
    outside[0] = False
    inside: Mask = ~outside[labels]
    return inside
