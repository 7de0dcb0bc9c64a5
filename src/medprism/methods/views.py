"""Views of a sub-volume: turned by a rotation of the cube, then corrupted by cut-out and swapped boxes.

Cut-out and swap follow Tang et al. 2022 (https://arxiv.org/abs/2111.14791), whose pre-training PUIR takes as its
baseline. Every draw is a function of a key of the (sample, modality) pair, so a view does not depend on the batch it
is drawn in, on the worker or on the rank; only the content swapped in comes from a neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medprism.data.randomness import rng, torch_rng
from medprism.errors import expect

BOX_SIDE = (0.05, 0.25)  # of the patch's side (Tang et al.)


@dataclass(frozen=True)
class Rotation:
    """A rotation of the cube: the axes permuted, then some flipped; exact on voxels."""

    axes: tuple[int, int, int]
    flips: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(..., X, Y, Z) turned."""
        lead = x.ndim - 3
        x = x.permute(*range(lead), *(lead + axis for axis in self.axes))
        return x.flip([lead + axis for axis in self.flips])

    def inverse(self, x: Tensor) -> Tensor:
        """(..., X, Y, Z) turned back."""
        lead = x.ndim - 3
        x = x.flip([lead + axis for axis in self.flips])
        back = [self.axes.index(axis) for axis in range(3)]
        return x.permute(*range(lead), *(lead + axis for axis in back))


def _sign(axes: tuple[int, ...]) -> int:
    return round(float(np.linalg.det(np.eye(3)[list(axes)])))


def _all_rotations() -> tuple[Rotation, ...]:
    found = []
    for first, second, third in permutations(range(3)):
        axes = (first, second, third)
        for bits in product((0, 1), repeat=3):
            flips = tuple(axis for axis in range(3) if bits[axis])
            if _sign(axes) * (-1) ** len(flips) == 1:
                found.append(Rotation(axes, flips))
    return tuple(found)


CUBE = _all_rotations()
"""The 24 rotations of the cube, the identity first."""

ABOUT_Z = tuple(r for r in CUBE if r.axes[2] == 2 and 2 not in r.flips)
"""The four quarter turns about z, i.e. in the X-Y plane (PUIR, Eq. 5), the identity first."""


def rotations(kind: Literal["z", "cube"]) -> tuple[Rotation, ...]:
    """The rotations that a view is drawn from: 4 about z or all 24."""
    return ABOUT_Z if kind == "z" else CUBE


def boxes(shape: Sequence[int], share: float, generator: np.random.Generator) -> np.ndarray:
    """Boxes with sides of 5-25 % of the volume's, until their volumes add up to `share` of it.

    Returns:
        (X, Y, Z) bool, True inside a box; all False for a share of 0.
    """
    mask = np.zeros(shape, dtype=bool)
    volume, covered = float(np.prod(shape)), 0.0
    while covered < share * volume:
        sides = [max(1, round(side * generator.uniform(*BOX_SIDE))) for side in shape]
        starts = [int(generator.integers(0, side - length + 1)) for side, length in zip(shape, sides, strict=True)]
        mask[tuple(slice(start, start + length) for start, length in zip(starts, sides, strict=True))] = True
        covered += float(np.prod(sides))
    return mask


@dataclass(frozen=True)
class Corruption:
    """How much of a view is destroyed.

    Attributes:
        cutout: share of the volume in boxes replaced by standard normal noise.
        swap: share of the volume in boxes replaced by the same place of another sample.
    """

    cutout: float = 0.3
    swap: float = 0.3

    def __post_init__(self) -> None:
        for name in ("cutout", "swap"):
            expect(0 <= getattr(self, name) <= 1, "a share from 0 to 1", f"puir.corruption.{name}", getattr(self, name))

    def __call__(self, views: Tensor, partners: Tensor, seed: int, keys: Sequence[tuple[int | str, ...]]) -> Tensor:
        """Corrupt views.

        Args:
            views: (N, 1, X, Y, Z).
            partners: (N,) the row whose content is swapped in; a row that names itself keeps its own.
            seed: the seed of the run.
            keys: one key a row, of which all its draws are a function.

        Returns:
            (N, 1, X, Y, Z), a new tensor.
        """
        shape = views.shape[2:]
        noise = torch.empty(views.shape)
        cut = np.empty((len(views), *shape), dtype=bool)
        swapped = np.empty_like(cut)
        for row, key in enumerate(keys):
            places = rng(seed, "boxes", *key)
            cut[row] = boxes(shape, self.cutout, places)
            swapped[row] = boxes(shape, self.swap, places)
            torch.randn(shape, generator=torch_rng(seed, "noise", *key), out=noise[row, 0])
        out = torch.where(torch.from_numpy(cut)[:, None].to(views.device), noise.to(views), views)
        return torch.where(torch.from_numpy(swapped)[:, None].to(views.device), views[partners], out)
