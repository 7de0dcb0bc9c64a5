"""Masks of masked-image methods, made for the whole batch at once on its device, and what hidden voxels are filled by.

Two kinds. `grid`: the crop is divided into blocks, of which an exact share is hidden; so do the weights that were
released with BrainMVP. `cubes`: cubes around random voxels are hidden, one after another, until they cover the share;
so does the paper (Rui et al. 2024, https://arxiv.org/abs/2410.10604, Algorithm 1). They may overlap and reach outside.

Every draw is a function of a sample's key, thus a mask does not depend on the batch it is drawn in, on the device, on
the worker or on the rank. What is hidden is replaced by `torch.where(mask, filling, images)`, where the filling is
another scan of the subject (`another_modality`), a template (`medprism.models.templates`), noise (`noise`) or 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medprism.data.counter import random_bits, random_normal, sample_keys
from medprism.errors import UserError, expect

Key = tuple[int | str, ...]
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Masking:
    """How a crop is hidden.

    Attributes:
        kind: `grid`, an exact share of the blocks of a grid, or `cubes` around random voxels until the share is
            reached.
        ratio: share of the voxels that is hidden (0.875 in the paper; 0.8 in the script of the release).
        block: side of a block or cube in voxels.
    """

    kind: Literal["grid", "cubes"] = "grid"
    ratio: float = 0.875
    block: int = 8

    def __post_init__(self) -> None:
        expect(0 < self.ratio < 1, "a share above 0 and below 1", "mask.ratio", self.ratio)
        expect(self.block >= 1, "1 or more voxels", "mask.block", self.block)

    def check_size(self, size: Size, option: str = "mask") -> None:
        """Refuse crops that blocks do not divide, before anything is trained.

        Args:
            size: (X, Y, Z) voxels of a crop.
            option: whose value this is, for the message.

        Raises:
            UserError: the blocks of a grid do not divide the crop, or a cube is larger than the crop.
        """
        crop = "×".join(map(str, size))
        if self.kind == "grid" and any(side % self.block for side in size):
            sides = [n for n in range(1, min(size) + 1) if not any(side % n for side in size)]
            raise UserError(
                f"expected a crop that blocks of {self.block} voxels divide, got {crop}; set {option}.block to one of "
                f"{', '.join(map(str, sides))}, change patches.size or set {option}.kind to cubes"
            )
        if self.block > min(size):
            raise UserError(f"expected cubes within the crop of {crop}, got {self.block}; lower {option}.block")

    def __call__(self, size: Size, seed: int, keys: Sequence[Key], device: torch.device | str = "cpu") -> Tensor:
        """Draw a mask for each key.

        Args:
            size: (X, Y, Z) voxels of the crop.
            seed: of the run.
            keys: N keys, of which the masks are functions.
            device: where to.

        Returns:
            (N, 1, X, Y, Z) bool, True where hidden.

        Raises:
            UserError: the blocks do not fit the crop.
        """
        self.check_size(size)
        draw = _grid if self.kind == "grid" else _cubes
        return draw(sample_keys(seed, keys, device), size, self.ratio, self.block)[:, None]


def _grid(keys: Tensor, size: Size, ratio: float, block: int) -> Tensor:
    """(N, X, Y, Z): the blocks with the smallest draws are hidden, all but the whole part of the share to keep."""
    x, y, z = (side // block for side in size)
    blocks = x * y * z
    kept = math.floor(blocks * (1 - ratio) + 1e-6)  # 100 of 1000 at 0.9, though 1 − 0.9 is stored as less than 0.1
    order = random_bits(keys, blocks).argsort(dim=1)  # without ties, thus the same on every device
    hidden = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : blocks - kept], True)
    hidden = hidden.view(-1, x, y, z)
    for axis in (3, 2, 1):  # z first: what is then copied are ever longer runs
        hidden = hidden.repeat_interleave(block, dim=axis)
    return hidden


def _cubes(keys: Tensor, size: Size, ratio: float, block: int) -> Tensor:
    """(N, X, Y, Z): all cubes at once, each voxel with the number of the first cube that hides it."""
    voxels = math.prod(size)
    wanted = math.ceil(voxels * ratio - 1e-6)
    draws = math.ceil(-1.5 * math.log1p(-ratio) * voxels / block**3) + 8  # about half of them more than are needed
    while True:
        first = _first_cubes(random_bits(keys, draws), size, block)
        counts = torch.stack([torch.bincount(row, minlength=draws + 1) for row in first])
        covered = counts[:, :draws].cumsum(dim=1)
        if bool((covered[:, -1] >= wanted).all()):
            last = (covered < wanted).sum(dim=1, keepdim=True)
            return (first <= last).view(-1, *size)
        draws *= 2


def _first_cubes(bits: Tensor, size: Size, block: int) -> Tensor:
    """For each voxel the number of the first cube that it lies in.

    Args:
        bits: (N, K) of which the centres are drawn.
        size: (X, Y, Z).
        block: side of the cubes; an even one reaches one voxel further to the left of its centre than to the right.

    Returns:
        (N, X * Y * Z) int32, K where there is none.
    """
    rows, draws = bits.shape
    centres = (bits & ((1 << 62) - 1)) % math.prod(size)
    numbers = torch.arange(draws, dtype=torch.int32, device=bits.device).expand(rows, -1)
    first = torch.full((rows, math.prod(size)), draws, dtype=torch.int32, device=bits.device)
    first = first.scatter_reduce_(1, centres, numbers, "amin").view(rows, *size)
    for axis in (1, 2, 3):
        first = _least_of(first, axis, block, draws)
    return first.reshape(rows, -1)


def _least_of(x: Tensor, axis: int, width: int, beyond: int) -> Tensor:
    """Least of the `width` neighbours along an axis whose cubes reach a voxel; outside is `beyond`."""
    left = (width - 1) // 2  # a voxel is reached from the right by as much as cubes reach to the left
    ends = [list(x.shape) for _ in range(2)]
    ends[0][axis], ends[1][axis] = left, width - 1 - left
    x = torch.cat([x.new_full(ends[0], beyond), x, x.new_full(ends[1], beyond)], dim=axis)
    span = 1
    while span < width:  # the least of `span` from each place on; two of them make the least of up to twice as many
        step = min(span, width - span)
        length = x.shape[axis] - step
        x = torch.minimum(x.narrow(axis, 0, length), x.narrow(axis, step, length))
        span += step
    return x


def another_modality(
    present: Tensor, modality: Tensor, names: Sequence[str], seed: int, keys: Sequence[Key]
) -> tuple[Tensor, Tensor]:
    """Choose for each sample one of the subject's other scans, each with the same probability.

    Args:
        present: (N, M) bool.
        modality: (N,) that it is not to be.
        names: M names of the modalities; they key the draws, so that their order does not matter.
        seed: of the run.
        keys: N keys.

    Returns:
        (N,) index of the modality chosen, the sample's own where the subject has no other; (N,) bool whether it has.
    """
    own = torch.arange(len(names), device=present.device) == modality[:, None]
    choice = present & ~own
    by_name = [sample_keys(seed, [(*key, name) for key in keys], present.device) for name in names]
    draws = random_bits(torch.stack(by_name, dim=1).flatten(), 1).view(len(keys), -1)
    chosen = draws.masked_fill(~choice, torch.iinfo(torch.int64).max).argmin(dim=1)
    some = choice.any(dim=1)
    return torch.where(some, chosen, modality), some


def noise(size: Size, seed: int, keys: Sequence[Key], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise (N, 1, X, Y, Z), a function of each key: normalised scans have about that spread."""
    return random_normal(sample_keys(seed, keys, device), math.prod(size)).view(-1, 1, *size)
