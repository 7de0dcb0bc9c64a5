"""The U-Net of residual blocks behind ACN and BrainMVP's UNET3D (Myronenko 2018, https://arxiv.org/abs/1810.11654).

Without its autoencoder. Pre-activation blocks with group normalisation, 1, 2, 2 and 4 of them at four resolutions; the
decoder adds what the encoder found instead of stacking it, so it goes without where that is zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.backbone import StemConv3d
from medprism.models.convolution import PointConv3d, TinyConv3d
from medprism.models.recompute import recomputed

BLOCKS = (1, 2, 2, 4)
GROUPS = 8


class NormalisedBlock(nn.Module):
    """Group normalisation, ReLU, convolution, twice, added to the input (He et al. 2016, pre-activation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = math.gcd(GROUPS, channels)
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.conv1 = TinyConv3d(channels, channels, 3, padding=1)
        self.conv2 = TinyConv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to the same shape."""
        y: Tensor = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        return x + y


class ResidualUNet(nn.Module):
    """As many resolutions as asked for, one block at each on the way up.

    Args:
        in_channels: M, the channels of the stem.
        out_channels: channels of the output; 0 for an encoder without decoder.
        width: channels at full resolution; they double at each level (16 in ACN: 4.70 million parameters; 32 in
            BrainMVP: 18.8).
        levels: resolutions, 4 as published; more have four blocks each. The bottleneck's stride is 2^(levels-1).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        self.strides = tuple(2**level for level in range(levels))
        self.channels = tuple(width * stride for stride in self.strides)
        pairs = list(zip(self.channels[:-1], self.channels[1:], strict=True))
        counts = [BLOCKS[min(level, len(BLOCKS) - 1)] for level in range(levels)]
        self.stem = StemConv3d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(TinyConv3d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(NormalisedBlock(channels) for _ in range(count)))
            for channels, count in zip(self.channels, counts, strict=True)
        )
        if out_channels:
            self.up = nn.ModuleList(PointConv3d(coarse, fine) for fine, coarse in pairs)
            self.refine = nn.ModuleList(NormalisedBlock(fine) for fine, _ in pairs)
            self.head = PointConv3d(width, out_channels)
        self.spares_memory = False
        self.memory_format = torch.channels_last_3d
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> list[Tensor]:
        """(N, 1 or M, X, Y, Z) to features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse."""
        x = recomputed(self, self._first, x.contiguous(memory_format=self.memory_format))
        features = [x]
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            x = block(down(x))
            features.append(x)
        return features

    def _first(self, x: Tensor) -> Tensor:
        fine: Tensor = self.blocks[0](self.stem(x))
        return fine

    def bottleneck(self, x: Tensor) -> Tensor:
        """The last of `encode`'s features; all others are on the way to it."""
        return self.encode(x)[-1]

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """The decoder's features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse, without the bottleneck."""
        *skips, x = features
        x, levels = x.contiguous(memory_format=self.memory_format), []
        for level in reversed(range(len(skips))):
            x = skips[level] + F.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = self.refine[level](x) if level else recomputed(self, self.refine[0], x)
            levels.append(x)
        return levels[::-1]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features as of `encode` to (N, out_channels, X, Y, Z)."""
        out: Tensor = self.head(self.decoded(features)[0])
        return out
