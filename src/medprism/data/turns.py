"""Flips and quarter turns of a volume: exact, without interpolation, with the affine that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Turn:
    """Flips along X, Y, Z, then quarter turns in the X-Y plane.

    Attributes:
        flips: Whether to flip along (X, Y, Z).
        quarters: Number of 90-degree turns from X towards Y, 0 … 3; an odd number needs equal sides.
    """

    flips: tuple[bool, ...] = (False, False, False)
    quarters: int = 0

    def __call__(self, array: NDArray[T]) -> NDArray[T]:
        """The turned array, contiguous; (…, X, Y, Z), leading axes are left alone."""
        axes = tuple(axis - 3 for axis in range(3) if self.flips[axis])
        return np.ascontiguousarray(np.rot90(np.flip(array, axes), self.quarters, axes=(-3, -2)))

    def affine(self, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """The affine of the turned volume: each voxel keeps its place in the world.

        Args:
            affine: (4, 4), voxel before the turn -> world mm.
            shape: (X, Y, Z) voxels before the turn.

        Returns:
            (4, 4), voxel after the turn -> world mm.
        """
        flip = np.eye(4)
        for axis in range(3):
            if self.flips[axis]:
                flip[axis, axis], flip[axis, 3] = -1.0, shape[axis] - 1
        # After one quarter turn, voxel (i, j) shows what was at (j, Y − 1 − i).
        quarter = np.array([[0, 1, 0, 0], [-1, 0, 0, shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
        turned: NDArray[np.float64] = affine @ flip @ np.linalg.matrix_power(quarter, self.quarters)
        return turned
