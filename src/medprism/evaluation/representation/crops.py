"""Crops at the same four places of every subject, so that persons are compared and not parts of the body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

PLACES = ((0.25, 0.25, 0.25), (0.75, 0.75, 0.25), (0.75, 0.25, 0.75), (0.25, 0.75, 0.75))
"""Where a crop begins, as shares of the room that the volume leaves it: four corners of a cube, no two on an edge."""

LEAST = 0.1  # share of a crop that is foreground of some scan; air looks the same in everybody


def crops(
    images: NDArray[np.float32], foreground: NDArray[np.bool_], patch_size: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The crops of one prepared subject.

    Args:
        images: (M, X, Y, Z); a side that is shorter than the patch is continued by its outermost voxels.
        foreground: (M, X, Y, Z), of each scan.
        patch_size: x, y, z in voxels.

    Yields:
        Index into `PLACES` and (M, x, y, z). Places with less than a tenth of foreground are left out, and so are
        places at which an earlier crop lies already, as in a volume of the patch's size.
    """
    gaps = [max(size - side, 0) for size, side in zip(patch_size, images.shape[1:], strict=True)]
    pads = [(0, 0), *((gap // 2, gap - gap // 2) for gap in gaps)]
    images = np.pad(images, pads, mode="edge")
    tissue = np.pad(foreground.any(axis=0), pads[1:])
    room = np.subtract(tissue.shape, patch_size)
    taken = set()
    for place, share in enumerate(PLACES):
        start = np.rint(room * share).astype(int).tolist()
        if tuple(start) in taken:
            continue
        taken.add(tuple(start))
        window = tuple(slice(first, first + size) for first, size in zip(start, patch_size, strict=True))
        if tissue[window].mean() >= LEAST:
            yield place, images[(slice(None), *window)]
