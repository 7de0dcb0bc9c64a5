"""A residual 3-D U-Net that trains in minutes on a CPU.

Two choices differ from the usual (Çiçek et al. 2016, https://arxiv.org/abs/1606.06650):
- no normalisation but of the bottleneck. Instance and layer normalisation throw away the intensity that modality
  transfer has to write, batch normalisation ties a sample's loss to what else is in the batch; residual blocks that
  start as the identity train without (Zhang et al. 2019, https://arxiv.org/abs/1901.09321). The bottleneck is what
  is compared between scans, so its scale is fixed;
- channels-last memory, in which 3-D convolutions on CPUs are two to three times faster.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.backbone import StemConv3d
from medprism.models.convolution import PointConv3d, TinyConv3d
from medprism.models.recompute import recomputed


class ResidualBlock(nn.Module):
    """Activation, convolution, twice, added to the input (He et al. 2016, pre-activation).

    The second convolution starts at zero, so a fresh block is the identity (Zhang et al. 2019, Fixup).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = TinyConv3d(channels, channels, 3, padding=1)
        self.conv2 = TinyConv3d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to the same shape."""
        y: Tensor = self.conv1(F.silu(x))
        y = self.conv2(F.silu(y))
        return x + y


class UNet(nn.Module):
    """Residual U-Net with one block per level on the way down and one on the way up.

    Args:
        in_channels: M, the channels of the stem.
        out_channels: channels of the output; 0 for an encoder without decoder.
        width: channels at full resolution; they double at each level.
        levels: resolutions, the bottleneck included; the bottleneck's stride is 2^(levels-1).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        self.channels = tuple(width * 2**level for level in range(levels))
        self.strides = tuple(2**level for level in range(levels))
        pairs = list(zip(self.channels[:-1], self.channels[1:], strict=True))
        self.stem = StemConv3d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.blocks = nn.ModuleList(ResidualBlock(c) for c in self.channels)
        self.norm = nn.GroupNorm(8 if self.channels[-1] % 8 == 0 else 1, self.channels[-1])
        if out_channels:
            self.up = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairs)
            self.merge = nn.ModuleList(PointConv3d(2 * fine, fine) for fine, _ in pairs)
            self.refine = nn.ModuleList(ResidualBlock(fine) for fine, _ in pairs)
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
        return [*features[:-1], self.norm(features[-1])]

    def _first(self, x: Tensor) -> Tensor:
        fine: Tensor = self.blocks[0](self.stem(x))
        return fine

    def _merged(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        merged: Tensor = self.merge[level](torch.cat([self.up[level](x), skip], dim=1))
        return merged

    def bottleneck(self, x: Tensor) -> Tensor:
        """The last of `encode`'s features; all others are on the way to it."""
        return self.encode(x)[-1]

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """The decoder's features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse, without the bottleneck."""
        *skips, x = features
        x, levels = x.contiguous(memory_format=self.memory_format), []
        for level in reversed(range(len(skips))):
            if level:
                x = self.refine[level](self._merged(level, x, skips[level]))
            else:  # two parts, of which one at a time has its inner maps
                x = recomputed(self, self.refine[0], recomputed(self, partial(self._merged, 0), x, skips[0]))
            levels.append(x)
        return levels[::-1]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features fine to coarse to an image (N, out_channels, X, Y, Z)."""
        out: Tensor = self.head(self.decoded(features)[0])
        return out
