"""Axis-aligned boxes of voxels in world space, sampling in them, and smooth random fields on them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float32]

# The field of view of the usual 182×218×182 MNI152 grid at 1 mm: its centre and its size in mm.
_CENTRE = (-0.5, -17.5, 18.5)
_SIZE = (182, 218, 182)


@dataclass(frozen=True)
class Box:
    """Isotropic voxels along the RAS+ axes.

    Attributes:
        origin: World coordinates of the first voxel's centre, mm.
        spacing: Voxel side, mm.
        shape: Number of voxels along x, y, z.
    """

    origin: tuple[float, float, float]
    spacing: float
    shape: tuple[int, int, int]

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) voxel → world mm."""
        matrix = np.diag([self.spacing] * 3 + [1.0])
        matrix[:3, 3] = self.origin
        return matrix

    def finer(self, factor: int) -> Box:
        """The same field of view with `factor`³ voxels in the place of each."""
        spacing = self.spacing / factor
        shift = (spacing - self.spacing) / 2
        x, y, z = (o + shift for o in self.origin)
        a, b, c = (n * factor for n in self.shape)
        return Box((x, y, z), spacing, (a, b, c))

    def centres(self) -> Array:
        """(X·Y·Z, 3) world coordinates of all voxel centres, mm, last axis fastest."""
        return self.world(np.indices(self.shape, np.float32).reshape(3, -1).T)

    def world(self, voxels: NDArray[np.floating] | NDArray[np.integer]) -> Array:
        """World coordinates (N, 3) of voxel coordinates (N, 3), mm."""
        return np.asarray(voxels * np.float32(self.spacing) + np.asarray(self.origin, np.float32), np.float32)


def head_box(spacing: float) -> Box:
    """The grid of a brain image: the field of view of MNI152 at a given voxel side in mm."""
    x, y, z = (ceil(size / spacing - 1e-6) for size in _SIZE)
    ox, oy, oz = (c - (n - 1) * spacing / 2 for c, n in zip(_CENTRE, (x, y, z), strict=True))
    return Box((ox, oy, oz), float(spacing), (x, y, z))


def sample(volume: Array, box: Box, points: Array) -> Array:
    """Trilinear interpolation, constant beyond the border.

    Args:
        volume: (C, X, Y, Z) on `box`.
        box: Where the voxels lie.
        points: (N, 3) world coordinates, mm.

    Returns:
        (C, N).
    """
    scale = np.float32(2.0 / box.spacing) / (np.asarray(box.shape, np.float32) - 1)
    grid = (points - np.asarray(box.origin, np.float32)) * scale - np.float32(1.0)
    # grid_sample names the last axis first
    where = torch.from_numpy(np.ascontiguousarray(grid[:, ::-1])).view(1, 1, 1, -1, 3)
    source = torch.from_numpy(np.ascontiguousarray(volume)).unsqueeze(0)
    values = torch.nn.functional.grid_sample(source, where, padding_mode="border", align_corners=True)
    return values.view(volume.shape[0], -1).numpy()


def smooth_noise(rng: np.random.Generator, box: Box, scale: float, count: int = 1) -> Array:
    """Stationary Gaussian random fields of mean 0 and variance 1.

    Args:
        rng: Source of the numbers.
        box: Lattice to draw on; its spacing should not exceed `scale`.
        scale: Standard deviation of the smoothing kernel, mm.
        count: Number of independent fields.

    Returns:
        (count, X, Y, Z).
    """
    sigma = scale / box.spacing
    noise = rng.standard_normal((count, *box.shape), dtype=np.float32)
    smooth = gaussian_filter(noise, (0, sigma, sigma, sigma), mode="wrap")
    # by the kernel's norm, not by the sample's spread: the fields of small boxes keep their random mean
    impulse = np.zeros(2 * ceil(4 * sigma) + 1, np.float32)
    impulse[impulse.size // 2] = 1
    norm = float(np.square(gaussian_filter(impulse, sigma)).sum()) ** 1.5
    return np.asarray(smooth / np.float32(norm), np.float32)


def block_mean(volume: Array, factor: int) -> Array:
    """Average of each block of `factor`³ voxels, (X·f, Y·f, Z·f) → (X, Y, Z)."""
    if factor == 1:
        return volume
    x, y, z = (n // factor for n in volume.shape)
    return np.asarray(volume.reshape(x, factor, y, factor, z, factor).mean((1, 3, 5)), np.float32)
