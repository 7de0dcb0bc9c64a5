"""The U-Net of residual blocks behind ACN (Myronenko 2018, https://arxiv.org/abs/1810.11654, without its autoencoder).

Pre-activation blocks with group normalisation, 1, 2, 2 and 4 of them at four resolutions; the decoder adds what the
encoder found instead of stacking it.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.convolution import TinyConv3d

BLOCKS = (1, 2, 2, 4)
STRIDES = (1, 2, 4, 8)
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
    """Four resolutions, one block at each on the way up.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        width: channels at full resolution; they double at each level (16 in ACN: 4.70 million parameters).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 16) -> None:
        super().__init__()
        self.channels, self.strides = tuple(width * stride for stride in STRIDES), STRIDES
        pairs = list(zip(self.channels[:-1], self.channels[1:], strict=True))
        self.stem = nn.Conv3d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(TinyConv3d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(NormalisedBlock(channels) for _ in range(count)))
            for channels, count in zip(self.channels, BLOCKS, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.refine = nn.ModuleList(NormalisedBlock(fine) for fine, _ in pairs)
        self.head = nn.Conv3d(width, out_channels, 1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, X, Y, Z), sides multiples of 8, to (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse."""
        x = self.blocks[0](self.stem(x))
        features = [x]
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            x = block(down(x))
            features.append(x)
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features as of `encode` to (N, out_channels, X, Y, Z)."""
        *skips, x = features
        for level in reversed(range(len(skips))):
            x = skips[level] + F.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = self.refine[level](x)
        out: Tensor = self.head(x)
        return out
