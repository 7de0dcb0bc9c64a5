"""Where the body or the brain is in a scan: nothing outside may count in a mean, a percentile or a score.

The rules need no spacing and no training. They were set by looking at their masks on thigh, trunk and head scans, and
against the body in CT where a patient had both CT and MRI.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from medprism.data.morphology import IN_PLANE, dilated, eroded, filled, majority

Foreground: TypeAlias = Literal["nonzero", "auto", "body", "uptake", "emission"]

BODY_HU = -300  # skin is denser, mattresses and clothes are mostly not
UPTAKE_SUV = 0.1  # far below any tissue, above what reconstruction leaves in air
# Of the 99th percentile, the least that is tissue in MRI. Brain extraction (Smith 2002, 10.1002/hbm.10062) takes the
# same tenth; noise in air stays below, muscle next to bright fat is at a quarter.
TISSUE = 0.1
# Of the median of what is brighter, the least that is tissue in PET without attenuation correction. The edge of a
# blurred body is at half its height; from 0.6 on a bright brain takes over.
HALF = 0.5
FAINT = 1e-3  # of the 99th percentile; what is darker counts as just as dark
BREACH = 5  # voxels, half the width of the gaps in the skin of noisy PET that lead to a dark lung or heart
NEIGHBOURS = 9  # slices, an odd number, whose thresholds one slice shares
# Of the largest connected part, what another one must measure to count.
LEAST_PART = 0.05


def foreground(array: NDArray[Any], rule: Foreground) -> NDArray[np.bool_]:
    """Foreground of a scan, its cavities included.

    Args:
        array: (X, Y, Z) in RAS+ order, in its own unit.
        rule: `nonzero`: what is not exactly zero, for extracted brains. `auto`: that where the background is exactly
            zero, else what stands out of noisy air. `body`: denser than −300 HU. `uptake`: SUV above 0.1.
            `emission`: PET in any unit, without attenuation correction. All but `nonzero` leave out specks and
            couches.

    Returns:
        bool (X, Y, Z); empty if there is none.
    """
    if rule == "nonzero":
        return _nonzero(array)
    if rule == "body":
        return _closed(_large_parts(array > BODY_HU))
    if rule == "uptake":
        return _closed(_large_parts(majority(array > UPTAKE_SUV)))
    if rule == "emission":
        return _emission(array)
    return _auto(array)


def _emission(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Above half of what is usual in the body: in the volume, and in the slice.

    A brain, a bladder or a tumour is 30 times as bright as muscle, so no share of the brightest finds the body; a
    median hardly sees them. Reconstruction without attenuation leaves streaks in air, brightest beside such organs.
    """
    smooth = np.maximum(ndimage.uniform_filter(np.maximum(array, 0).astype(np.float32), 3), 0)
    slices = [_half(smooth[..., z]) for z in range(smooth.shape[2])]
    threshold = np.maximum(_half(smooth), ndimage.median_filter(slices, NEIGHBOURS, mode="nearest"))
    return _closed(_bridged(_large_parts(majority(smooth > threshold)), BREACH))


def _bridged(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Closing by a disc, slice by slice; distances take a hundredth of the time that a structuring element does."""
    out = mask.copy()
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        wide = np.pad(mask[..., z], radius + 1)
        near = ndimage.distance_transform_edt(~wide) <= radius
        inner = slice(radius + 1, -radius - 1)
        out[..., z] = (ndimage.distance_transform_edt(near) > radius)[inner, inner]
    return out


def _half(array: NDArray[np.float32]) -> float:
    """A threshold that is `HALF` of the median of what lies above it; 0 if nothing is above 0.

    Air and brain have such a threshold too. The way to that of the body starts where logarithms fall into two classes
    (Otsu 1979, 10.1109/TSMC.1979.4310076), which is above air however much of it there is, and below the usual.
    """
    values = np.sort(array[array > 0])
    if not values.size:
        return 0.0
    darkest = FAINT * values[int(0.99 * (values.size - 1))]
    threshold = float(np.exp(threshold_otsu(np.log(np.maximum(values, darkest)))))  # type: ignore[no-untyped-call]
    for _ in range(100):  # rises or falls to where it stays
        above = values[min(np.searchsorted(values, threshold), values.size - 1) :]
        before, threshold = threshold, HALF * float(np.median(above))
        if abs(threshold - before) <= 1e-3 * before:
            break
    return threshold


def _auto(array: NDArray[Any]) -> NDArray[np.bool_]:
    """`nonzero` where the zeros begin at the tissue, else what stands out.

    Around an extracted brain what is not zero is tissue, a voxel or two of dark fluid on it. Around a body the zeros
    are padding, or air clipped to zero, and air with noise lies between.
    """
    whole = _nonzero(array)
    if not whole.any():
        return whole
    tissue = array > TISSUE * np.percentile(array[array != 0], 99)
    clear = _closed(_large_parts(majority(tissue)), opening=0.03)
    beyond = whole & ~dilated(clear, 3)
    extracted = whole.mean() < 0.9 and beyond.sum() < 0.02 * whole.sum()
    return whole if extracted else clear


def _nonzero(array: NDArray[Any]) -> NDArray[np.bool_]:
    # Resampling undershoots: up to a hundredth of a brain is negative, so not `> 0`.
    return filled(array != 0)


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts that count: legs and arms, but not specks, clothes and the plates of a couch.

    A part is measured by what remains of it when three layers of voxels are peeled off, which is nothing of a plate.
    """
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    core = eroded(mask, 3)
    sizes = np.bincount(labels[core if core.any() else mask], minlength=count + 1)
    return np.asarray((sizes >= LEAST_PART * sizes.max())[labels] & mask)


def _closed(mask: NDArray[np.bool_], opening: float = 0.01) -> NDArray[np.bool_]:
    """Cavities filled slice by slice: lungs and bowels are open to the ends of a volume, but not to its sides.

    Gas and bone that a cropped volume cuts at its side are cavities too: what reaches the rim of the slice with less
    than the part `opening` of its area is filled. A slice without any foreground stays empty.
    """
    labels, count = ndimage.label(~mask, IN_PLANE)
    rim = np.zeros(count + 1, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        rim[side] = True
    open_air = rim & (np.bincount(labels.ravel(), minlength=count + 1) >= opening * mask[..., 0].size)
    open_air[0] = False
    closed: NDArray[np.bool_] = ~open_air[labels] & mask.any(axis=(0, 1))
    return closed
