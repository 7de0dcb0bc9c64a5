"""Convolutions that torch does badly on a CPU: maps of a few voxels in bf16, and kernels of one voxel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 3  # voxels a side, whatever the kernel: those of side 1 are no better on smaller maps


class TinyConv3d(nn.Conv3d):
    """A convolution that computes in float32 where a side of its input on a CPU is less than its kernel's, or than 3.

    In bf16 the weights' gradient is then wrong without a word, often infinite: torch 2.13 on processors with bf16
    units; for a kernel of 3 and stride 1 where the first side is 2, for stride 2 also where others are 1; for a
    depthwise kernel of 5 where the first side is 4 or less. The output and all other sizes are right. So small crops
    under autocast would train on noise; maps this small cost nothing in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to (N, C', X', Y', Z')."""
        enough = max(*self.kernel_size, LEAST)
        if x.device.type != "cpu" or min(x.shape[2:]) >= enough or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class PointConv3d(nn.Conv3d):
    """A convolution with a kernel of one voxel as the linear layer over channels that it is.

    On CPUs torch takes such a convolution out of the channels-last format and by a slow way, in both directions: with
    the copies that follow it is a tenth of a step of the small U-Net. Parameters are those of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to (N, C', X, Y, Z)."""
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
