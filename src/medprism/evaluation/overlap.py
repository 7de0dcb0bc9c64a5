"""How far one region is from another: Dice and the 95 % Hausdorff distance, with rules for regions that are empty.

| truth | output | Dice | HD95 |
| --- | --- | --- | --- |
| empty | empty | 1 | 0 mm |
| empty | some | 0 | the volume's diagonal |
| some | empty | 0 | the volume's diagonal |

These are the rules of the BraTS challenges, whose volume of 240 × 240 × 155 mm makes the well-known 373.13 mm. The
diagonal is the largest distance that there can be, so nobody gains by leaving a region out, as with a NaN that a mean
skips, or with a small number. How often a rule decided is counted beside every mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
PERCENTILE = 95.0


def dice(truth: Mask, output: Mask) -> float:
    """Dice similarity 2·|A ∩ B| / (|A| + |B|) of two masks of one shape; 1 where both are empty."""
    total = np.count_nonzero(truth) + np.count_nonzero(output)
    return float(2 * np.count_nonzero(truth & output) / total) if total else 1.0


def hd95(truth: Mask, output: Mask, spacing: Sequence[float]) -> float:
    """The 95 % Hausdorff distance between the surfaces of two masks.

    The larger of the two directions' 95th percentiles (linear between ranks), as MONAI and the BraTS tools have it.
    The surface is every voxel of a mask with a face neighbour outside of it or of the volume; distances are exact and
    between voxel centres.

    Args:
        truth: (X, Y, Z).
        output: (X, Y, Z).
        spacing: of the voxels along X, Y, Z in mm.

    Returns:
        mm; for empty masks see the module's rules.
    """
    box = bounds(truth | output)
    if box is None:
        return 0.0
    if not (truth.any() and output.any()):
        return diagonal(truth.shape, spacing)
    a, b = surface(truth[box]), surface(output[box])
    return max(_directed(a, b, spacing), _directed(b, a, spacing))


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """From corner to corner of a volume, in mm."""
    return float(np.linalg.norm(np.multiply(shape, spacing)))


def bounds(mask: Mask) -> tuple[slice, ...] | None:
    """The smallest box that holds a mask (X, Y, Z), as slices; None if it is empty."""
    ends = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(end[0]), int(end[-1]) + 1) for end in ends) if ends[0].size else None


def surface(mask: Mask) -> Mask:
    """The voxels of a mask (X, Y, Z) that have one of 6 neighbours outside; what is beyond the array is outside."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(window)]
    edge: Mask = mask & ~inner
    return edge


def _directed(origin: Mask, goal: Mask, spacing: Sequence[float]) -> float:
    distances = ndimage.distance_transform_edt(~goal, sampling=spacing)
    return float(np.percentile(distances[origin], PERCENTILE))
