"""A box of voxels that may reach beyond a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """The part of a box that lies within a volume, and how much of the box lies beyond it.

    Attributes:
        start: First voxel (X, Y, Z) of the part within.
        size: Its voxels.
        beyond: For each axis, the box's voxels before the volume and behind it.
    """

    start: Triple
    size: Triple
    beyond: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, shape: Sequence[int], start: Sequence[int], size: Sequence[int]) -> Window:
        """The window of a box of `size` voxels from `start` on, which may be negative, over a volume of `shape`.

        Raises:
            ValueError: They have no voxel in common.
        """
        first = np.maximum(start, 0)
        end = np.minimum(np.add(start, size), shape)
        if (end <= first).any():
            raise ValueError(f"expected a box that meets the volume of {shape} voxels, got {size} from {start} on")
        x, y, z = zip((first - start).tolist(), (np.add(start, size) - end).tolist(), strict=True)
        return cls(_triple(first), _triple(end - first), (x, y, z))

    def pad(self, part: NDArray[Any], fill: ArrayLike = 0) -> NDArray[Any]:
        """The box's voxels (..., *box) of those within the volume (..., *size).

        Args:
            part: What was read of `start` and `size`.
            fill: Value beyond the volume: one, or one for each of the leading dimension.
        """
        if not any(map(any, self.beyond)):
            return part
        box = (n + before + behind for n, (before, behind) in zip(self.size, self.beyond, strict=True))
        padded = np.empty((*part.shape[:-3], *box), part.dtype)
        padded[...] = np.asarray(fill)[..., None, None, None]
        inner = tuple(slice(before, before + n) for n, (before, _) in zip(self.size, self.beyond, strict=True))
        x, y, z = inner
        padded[..., x, y, z] = part
        return padded


def _triple(values: NDArray[np.int64]) -> Triple:
    x, y, z = values.tolist()
    return x, y, z
