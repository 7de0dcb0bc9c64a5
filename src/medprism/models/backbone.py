"""What a backbone is: an encoder that gives features from fine to coarse, and a decoder that takes them back.

Any network with these names can carry every method of the package.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Backbone(Protocol):
    """Encoder and decoder around a bottleneck z, the coarsest feature.

    Attributes:
        channels: channels of each feature, fine to coarse; `channels[-1]` is the bottleneck's.
        strides: voxels of the input per voxel of each feature, same order.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def head(self) -> nn.Module:
        """The last layer, from the decoder's finest features to the output."""
        ...

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features of scans.

        Args:
            x: (N, 1, X, Y, Z), one modality standing for all stem channels, or (N, M, X, Y, Z), one per channel.

        Returns:
            Features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse; the last is z.
        """
        ...

    def bottleneck(self, x: Tensor) -> Tensor:
        """Z alone, equal to `encode(x)[-1]`, without what only a decoder needs."""
        ...

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """The decoder's features, of the shapes that `encode` gives but for the bottleneck, fine to coarse."""
        ...

    def decode(self, features: list[Tensor]) -> Tensor:
        """Images from features of the shapes that `encode` gives: (N, out_channels, X, Y, Z)."""
        ...


class StemConv3d(nn.Conv3d):
    """A first convolution that takes M channels, or one channel standing for all M.

    The paper repeats a single modality M times. A convolution is linear, so that equals one channel with the weights
    summed over the input channels: the same numbers for 1/M of the work (PUIR, appendix F.2.1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 or M, X, Y, Z) to (N, C, X', Y', Z')."""
        weight = self.weight
        if x.shape[1] == 1 and self.in_channels > 1:
            weight = weight.sum(dim=1, keepdim=True)
            # One channel is in both memory formats at once, and torch then takes the slower for all that follows. These
            # strides say channels-last; on CPUs the block behind is 1.3 times faster so.
            x = x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 4, 1, 2, 3)
        out: Tensor = self._conv_forward(x, weight, self.bias)
        return out

    @classmethod
    def like(cls, conv: nn.Conv3d) -> StemConv3d:
        """The same convolution, its parameters shared, that also takes one channel."""
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(f"expected zero padding given in voxels, got {conv.padding_mode} {conv.padding}")
        stem = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            bias=conv.bias is not None,
        )
        stem.weight, stem.bias = conv.weight, conv.bias
        return stem


def divisor(backbone: Backbone) -> int:
    """Every side of a patch is a multiple of this number of voxels."""
    return max(backbone.strides)


def pooled(z: Tensor) -> Tensor:
    """Mean over space in float32: (N, C, x, y, z) to (N, C)."""
    return torch.mean(z.float(), dim=(2, 3, 4))
