"""The rule for regions that are too small to be believed.

BraTS scores an absent enhancing tumour by all or nothing, so its participants take an enhancing part of under 500
voxels (of 1 mm³) for a mistake and call it necrosis, which leaves the tumour core as it was. What looks like a gain on
that score may be a small recurrence, so the rule is never applied unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.io.grid import Grid

Labels = TypeVar("Labels", bound=NDArray[Any])


def drop_small(
    labels: Labels, small: Mapping[str, float], regions: Mapping[str, Sequence[int]], *, voxel_mm3: float
) -> Labels:
    """Label map without the regions whose whole volume is too small; see `becomes` for what their voxels turn into.

    The region counts as one, however many pieces it is in. Regions are looked at from the one of fewest labels to the
    one of most, so that what a part turns into counts for the whole.

    Args:
        labels: (X, Y, Z) integers.
        small: region -> least volume in mm³; a region of less is dropped. Millimetres, so that the rule means the same
            on every grid.
        regions: region -> its label values.
        voxel_mm3: volume of a voxel.

    Returns:
        The map, a new one if anything changed.

    Raises:
        UserError: no such region, or a volume that is none.
    """
    for name in checked(small, regions):
        inside = np.isin(labels, regions[name])
        if 0 < inside.sum() * voxel_mm3 < small[name]:
            labels = np.where(inside, labels.dtype.type(becomes(name, regions)), labels)  # type: ignore[assignment]
    return labels


def becomes(region: str, regions: Mapping[str, Sequence[int]]) -> int:
    """The label of a dropped region's voxels.

    It is what is left of the smallest region around it, if that is one label: dropped ET is necrosis (TC without ET),
    a dropped core is oedema (WT without TC). Otherwise it is background, 0.
    """
    own = set(regions[region])
    around = sorted((set(values) for values in regions.values() if set(values) > own), key=len)
    left = around[0] - own if around else set()
    return next(iter(left)) if len(left) == 1 else 0


def checked(small: Mapping[str, float], regions: Mapping[str, Sequence[int]]) -> list[str]:
    """The regions that the rule is for, in the order in which they are looked at.

    Raises:
        UserError: no such region, or a volume that is none.
    """
    for name, least in small.items():
        if name not in regions:
            raise UserError(f"expected a region out of {', '.join(regions)} for small, got {name}")
        if not 0 < least < float("inf"):
            raise UserError(f"expected a volume in mm³ above 0 for small.{name}, got {least:g}")
    return sorted(small, key=lambda name: len(regions[name]))


def described(small: Mapping[str, float], regions: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    """The rule as sidecars tell it: region -> least volume in mm³ and the label that less than that becomes."""
    return {
        name: {"LeastMm3": float(small[name]), "Becomes": becomes(name, regions)} for name in checked(small, regions)
    }


def voxel_mm3(grid: Grid) -> float:
    """Volume of a voxel, also of a sheared grid."""
    return float(abs(np.linalg.det(grid.affine[:3, :3])))
