"""Convolutions of maps of a few voxels in bf16 on a CPU, where torch's are wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
