"""Where the body or the brain is in a scan: nothing outside may count in a mean, a percentile or a score."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

Foreground: TypeAlias = Literal["nonzero", "auto", "body", "uptake"]


def foreground(array: NDArray[Any], rule: Foreground) -> NDArray[np.bool_]:
    """Foreground of a scan.

    Args:
        array: (X, Y, Z) in RAS+ order, in its own unit.
        rule: `nonzero`: what is not exactly zero (extracted brains). `auto`: that where the background is exactly
            zero, else what stands out of noisy air. `body`: denser than −300 HU. `uptake`: SUV above 0.1. All with
            enclosed cavities filled, all but `nonzero` without specks and couches.

    Returns:
        bool (X, Y, Z); empty if there is none.
    """
    if rule == "nonzero":
        return _filled(array != 0)
    if rule == "body":
        return _filled(_large_parts(array > -300))
    if rule == "uptake":
        return _filled(_large_parts(array > 0.1))
    zero = array == 0
    if zero.mean() > 0.3:
        return _filled(~zero)
    threshold = 0.5 * float(threshold_otsu(array))  # type: ignore[no-untyped-call]
    return _filled(_large_parts(array > threshold))


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts that have at least a tenth of the largest one's voxels."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= 0.1 * sizes.max())[labels])


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Holes closed within each axial slice, as airways and bowels leave a cropped volume at its ends, and in 3-D."""
    flat = np.stack([ndimage.binary_fill_holes(mask[..., z]) for z in range(mask.shape[2])], axis=2)
    return np.asarray(ndimage.binary_fill_holes(flat), dtype=bool)
