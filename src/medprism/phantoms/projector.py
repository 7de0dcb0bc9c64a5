"""Parallel projection of the slices of a volume, and ordered-subset reconstruction.

The system matrix holds the exact area that each square pixel shares with each strip between two rays. It is the same
for all slices, so that a whole volume is projected by one product with a sparse matrix: what takes a rotation per
angle and slice elsewhere takes some hundredths of a second here.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import ceil, hypot

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medprism.phantoms.box import Array


class Projector:
    """Line integrals of the slices z of a volume.

    Attributes:
        shape: (X, Y) of a slice.
        spacing: Side of the pixels and width of the bins, mm.
        angles: Number of directions over half a turn.
        bins: Number of bins of each direction; they cover the slice's corners.
        subsets: Number of interleaved groups of directions, for `osem`.
    """

    def __init__(self, shape: tuple[int, int], spacing: float, angles: int, subsets: int = 1) -> None:
        """Make the matrices.

        Args:
            shape: (X, Y) of a slice.
            spacing: mm.
            angles: Over half a turn; a multiple of `subsets`.
            subsets: Groups of directions.
        """
        if angles % subsets:
            raise ValueError(f"expected a number of angles that {subsets} subsets divide, got {angles}")
        self.shape, self.spacing, self.angles, self.subsets = shape, spacing, angles, subsets
        self.bins = ceil(hypot(*shape)) + 2
        self._matrices = [self._matrix(np.arange(first, angles, subsets)) for first in range(subsets)]
        self._transposed = [csr_array(matrix.T) for matrix in self._matrices]

    def forward(self, volume: Array) -> Array:
        """(X, Y, Z) → line integrals (A, S, Z) in mm times the volume's unit, angles grouped by subset."""
        flat = volume.reshape(-1, volume.shape[-1])
        parts = [np.asarray(matrix @ flat, np.float32) for matrix in self._matrices]
        return np.concatenate(parts).reshape(self.angles, self.bins, -1)

    def back(self, sinogram: Array) -> Array:
        """The transpose of `forward`: (A, S, Z) → (X, Y, Z)."""
        flat = sinogram.reshape(self.subsets, -1, sinogram.shape[-1])
        total = sum(matrix @ part for matrix, part in zip(self._transposed, flat, strict=True))
        return np.asarray(total, np.float32).reshape(*self.shape, -1)

    def directions(self) -> NDArray[np.float64]:
        """(A,) angle of each row of a sinogram, radians: the bins run along (cos, sin)."""
        order = np.concatenate([np.arange(first, self.angles, self.subsets) for first in range(self.subsets)])
        return np.asarray(order * np.pi / self.angles)

    def osem(self, counts: Array, factors: Array, background: Array, iterations: int) -> Array:
        """Ordered subsets expectation maximisation (Hudson and Larkin 1994, IEEE TMI 13:601).

        Args:
            counts: (A, S, Z) what was measured.
            factors: (A, S, Z) counts for one unit of line integral: sensitivity times attenuation.
            background: (A, S, Z) mean counts that come from elsewhere.
            iterations: Passes over all subsets.

        Returns:
            (X, Y, Z), not negative.
        """
        depth = counts.shape[-1]
        measured, scale, other = (a.reshape(self.subsets, -1, depth) for a in (counts, factors, background))
        weights = [matrix @ part for matrix, part in zip(self._transposed, scale, strict=True)]
        # a flat image with as many counts as there were
        ones = np.ones((*self.shape, depth), np.float32)
        start = np.maximum(counts - background, 0).sum((0, 1)) / np.maximum(
            (factors * self.forward(ones)).sum((0, 1)), 1e-9
        )
        start = np.maximum(start, 1e-6)
        image = np.tile(start.astype(np.float32), (self.shape[0] * self.shape[1], 1))
        for _ in range(iterations):
            for matrix, transposed, y, f, b, weight in zip(
                self._matrices, self._transposed, measured, scale, other, weights, strict=True
            ):
                expected = f * (matrix @ image) + b
                ratio = np.divide(f * y, expected, out=np.zeros_like(y), where=expected > 1e-6)
                image *= np.divide(transposed @ ratio, weight, out=np.zeros_like(image), where=weight > 1e-6)
        return np.asarray(image, np.float32).reshape(*self.shape, depth)

    def _matrix(self, which: NDArray[np.intp]) -> csr_array:
        """(directions·S, X·Y): area shared with each strip over its width, mm."""
        x, y = (np.arange(n) - (n - 1) / 2 for n in self.shape)
        pixels = np.arange(x.size * y.size)
        rows, columns, values = [], [], []
        for row, index in enumerate(which):
            angle = np.pi * index / self.angles
            cosine, sine = np.cos(angle), np.sin(angle)
            at = (x[:, None] * cosine + y * sine).ravel() + (self.bins - 1) / 2
            nearest = np.rint(at)
            # a pixel's shadow is at most √2 wide, so that it meets three bins
            edges = [_shadow(nearest + edge - at, cosine, sine) for edge in (-1.5, -0.5, 0.5, 1.5)]
            for shift, (low, high) in zip((-1, 0, 1), pairwise(edges), strict=True):
                share = high - low
                there = share > 1e-6
                rows.append((row * self.bins + nearest[there] + shift).astype(np.int32))
                columns.append(pixels[there].astype(np.int32))
                values.append((share[there] * self.spacing).astype(np.float32))
        shape = (which.size * self.bins, pixels.size)
        return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


@lru_cache(maxsize=2)
def projector(shape: tuple[int, int], spacing: float, angles: int, subsets: int) -> Projector:
    """The one for a grid, kept: the subjects of a cohort share it."""
    return Projector(shape, spacing, angles, subsets)


def _shadow(at: NDArray[np.float64], cosine: float, sine: float) -> NDArray[np.float64]:
    """Area of a unit square, projected onto a line, up to a point of the line: the integral of a trapezoid."""
    wide, narrow = max(abs(cosine), abs(sine)), max(min(abs(cosine), abs(sine)), 1e-6)
    outer, inner = (wide + narrow) / 2, (wide - narrow) / 2

    def ramp(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.square(np.maximum(u, 0)) / 2

    area = (ramp(at + outer) - ramp(at + inner) - ramp(at - inner) + ramp(at - outer)) / (wide * narrow)
    return np.asarray(np.clip(area, 0, 1))
