"""mmFormer's two decoders: one for the scans together, one for each scan alone.

mmFormer (Zhang et al. 2022, https://arxiv.org/abs/2206.02425), sections 2.1 and 2.3.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.prenorm import PaddedConv3d, PreNormConv3d


class Merge(nn.Module):
    """One step up: the coarse feature at twice its size, beside the fine one.

    Args:
        channels: C of the fine feature; the coarse one has 2C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = PreNormConv3d(2 * channels, channels)
        self.join = PreNormConv3d(2 * channels, channels)
        self.out = PreNormConv3d(channels, channels, kernel=1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(N, C, 2x, 2y, 2z) and (N, 2C, x, y, z) to the shape of the first."""
        coarse = self.up(enlarged(coarse, 2))
        return cast(Tensor, self.out(self.join(torch.cat([fine, coarse], dim=1))))


class SeparateDecoder(nn.Module):
    """A U-Net's decoder: features of one scan to classes. Trained only; it makes each encoder see by itself.

    Args:
        channels: of the five levels, fine to coarse.
        classes: K.
    """

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.merges = nn.ModuleList(Merge(c) for c in channels[:-1])
        self.head = PaddedConv3d(channels[0], classes, kernel=1)

    def levels(self, features: list[Tensor]) -> list[Tensor]:
        """Features (N, C_l, ...) fine to coarse to the decoder's, of the same shapes; the coarsest is the same."""
        levels = [features[-1]]
        for merge, fine in zip(reversed(self.merges), reversed(features[:-1]), strict=True):
            levels.append(merge(fine, levels[-1]))
        return levels[::-1]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features (N, C_l, ...) fine to coarse to logits (N, K, X, Y, Z)."""
        return cast(Tensor, self.head(self.levels(features)[0]))


class FusedDecoder(SeparateDecoder):
    """A U-Net's decoder whose features come from all modalities side by side, with a head at each level.

    Args:
        channels: of the five levels of one modality, fine to coarse.
        classes: K.
        modalities: M.
    """

    def __init__(self, channels: tuple[int, ...], classes: int, modalities: int) -> None:
        super().__init__(channels, classes)
        self.fusions = nn.ModuleList(
            nn.Sequential(
                PreNormConv3d(modalities * c, c, kernel=1),
                PreNormConv3d(c, c, edge="zeros"),
                PreNormConv3d(c, c, kernel=1),
            )
            for c in channels
        )
        self.coarse_heads = nn.ModuleList(PaddedConv3d(c, classes, kernel=1) for c in channels[1:])

    def fused(self, features: list[Tensor]) -> list[Tensor]:
        """Features (B, M·C_l, ...) fine to coarse to the decoder's levels (B, C_l, ...)."""
        return self.levels([fuse(feature) for fuse, feature in zip(self.fusions, features, strict=True)])

    def heads(self, levels: list[Tensor]) -> list[Tensor]:
        """The decoder's levels to logits (B, K, X/2^l, Y/2^l, Z/2^l), fine to coarse."""
        return [head(level) for head, level in zip([self.head, *self.coarse_heads], levels, strict=True)]


def enlarged(x: Tensor, factor: int) -> Tensor:
    """(N, C, x, y, z) at `factor` times its size, trilinear, the corner voxels kept in the corners."""
    return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
