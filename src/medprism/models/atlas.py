"""Volumes in world space that are read at the voxels of crops: boxes around the crops, sampled trilinearly.

Only the box that the crops of a batch lie in is copied, and only it is written by the backward pass; an atlas at 1 mm
has millions of voxels, a crop far fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medprism.errors import UserError, expect
from medprism.io.grid import Grid

Size = tuple[int, int, int]

# The field of view of the MNI152 template of 2009 (Fonov et al. 2011), 193 × 229 × 193 mm, which holds a whole head.
HEAD = ((-96.0, -132.0, -78.0), (96.0, 96.0, 114.0))


def box_grid(low: Sequence[float], high: Sequence[float], spacing: float) -> Grid:
    """The grid with axes along the world's whose outermost voxel centres hold a box.

    Args:
        low: (3,) corner in world mm, the centre of the first voxel.
        high: (3,) corner; the centres reach beyond it by less than the spacing.
        spacing: side of a voxel in mm.

    Raises:
        UserError: the spacing is not positive.
    """
    expect(0 < spacing < np.inf, "a positive length in mm", "the spacing of an atlas", spacing)
    x, y, z = np.ceil((np.array(high) - np.array(low)) / spacing - 1e-6).astype(int) + 1
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    return Grid((int(x), int(y), int(z)), affine)


def head_grid(spacing: float = 2.0) -> Grid:
    """A grid that holds a head in MNI space."""
    return box_grid(*HEAD, spacing)


def covering_grid(grids: Iterable[Grid], spacing: float) -> Grid:
    """A grid that holds all voxels of other grids, e.g. of the subjects of a cache, thus all their crops.

    Args:
        grids: at least one.
        spacing: side of a voxel in mm; the grid begins at a multiple of it.

    Raises:
        UserError: there is no grid, or the spacing is not positive.
    """
    expect(0 < spacing < np.inf, "a positive length in mm", "the spacing of an atlas", spacing)
    corners = [_corners(grid.affine, grid.shape) for grid in grids]
    if not corners:
        raise UserError("expected at least one scan to lay an atlas around, got none")
    points = np.concatenate(corners)
    low = np.floor(points.min(axis=0) / spacing + 1e-6) * spacing
    return box_grid(low.tolist(), points.max(axis=0).tolist(), spacing)


def overhang(grid: Grid, affine: NDArray[np.float64], size: Size) -> float:
    """How far in mm the voxel centres of a crop reach beyond those of a grid; 0 if they are within.

    Args:
        grid: what should hold the crop.
        affine: (4, 4) voxel of the crop -> world mm.
        size: (X, Y, Z) of the crop.
    """
    found = grid.voxel(_corners(affine, size))
    beyond = np.maximum(np.maximum(-found, found - (np.array(grid.shape) - 1)), 0)
    return float((beyond * np.array(grid.spacing)).max())


def sample(volumes: Tensor, grid: Grid, affine: Tensor, size: Size, channel: Tensor) -> Tensor:
    """Read volumes at the voxels of crops.

    Args:
        volumes: (S, X', Y', Z') on `grid`.
        grid: where they are.
        affine: (N, 4, 4) voxel of each crop -> world mm.
        size: (X, Y, Z) of the crops.
        channel: (N,) which volume.

    Returns:
        (N, 1, X, Y, Z), trilinear between voxel centres, beyond the outermost ones the value of the nearest
        edge. Differentiable by the volumes.
    """
    to_voxel = np.linalg.inv(grid.affine) @ affine.detach().cpu().double().numpy()  # (N, 4, 4)
    starts, box = _boxes(to_voxel, grid.shape, size)
    boxes: Tensor = _Boxes.apply(volumes, channel.tolist(), starts.tolist(), box)  # type: ignore[no-untyped-call]
    # Voxel of the crop -> place in its box, in float64 until numbers are small; −1 and 1 are the outermost centres.
    to_voxel[:, :3, 3] -= starts
    to_voxel[:, :3] *= 2 / np.maximum(np.array(box) - 1, 1)[:, None]
    to_voxel[:, :3, 3] -= 1
    # grid_sample names the last axis first.
    x, y, z, origin = torch.from_numpy(to_voxel[:, [2, 1, 0]]).to(volumes).unbind(dim=2)
    i, j, k = (torch.arange(side).to(volumes) for side in size)
    places = (
        (origin[:, None] + i[:, None] * x[:, None])[:, :, None, None]
        + (j[:, None] * y[:, None])[:, None, :, None]
        + (k[:, None] * z[:, None])[:, None, None, :]
    )
    with torch.autocast(volumes.device.type, enabled=False):
        return F.grid_sample(boxes, places, mode="bilinear", padding_mode="border", align_corners=True)


def _corners(affine: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """(8, 3) world mm of the outermost voxel centres."""
    voxels = np.array(list(product(*((0, side - 1) for side in size))))
    return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3])


def _boxes(to_voxel: NDArray[np.float64], shape: Size, size: Size) -> tuple[NDArray[np.int64], Size]:
    """First voxels (N, 3) of the boxes that crops lie in, and the size that is enough for each of them."""
    corners = np.stack([_corners(matrix, size) for matrix in to_voxel])
    last = np.array(shape) - 1
    low = np.clip(np.floor(corners.min(axis=1)), 0, last).astype(np.int64)
    high = np.clip(np.ceil(corners.max(axis=1)), 0, last).astype(np.int64)
    x, y, z = (high - low).max(axis=0) + 1
    return np.minimum(low, np.array(shape) - (x, y, z)), (int(x), int(y), int(z))


class _Boxes(torch.autograd.Function):
    """Boxes of volumes. Its backward pass makes one gradient; slicing would make one of full size for each box."""

    @staticmethod
    def forward(ctx: Any, volumes: Tensor, channels: list[int], starts: list[list[int]], size: Size) -> Tensor:  # noqa: ANN401
        """(N, 1, x, y, z) of (S, X, Y, Z)."""
        ctx.places = [
            (channel, *(slice(begin, begin + side) for begin, side in zip(start, size, strict=True)))
            for channel, start in zip(channels, starts, strict=True)
        ]
        ctx.shape = volumes.shape
        return torch.stack([volumes[place] for place in ctx.places])[:, None]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        """Each box added to its place."""
        [boxes] = grads
        gradient = boxes.new_zeros(ctx.shape)
        for place, box in zip(ctx.places, boxes, strict=True):
            gradient[place] += box[0]
        return gradient, None, None, None
