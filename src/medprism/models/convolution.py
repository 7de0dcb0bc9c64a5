"""Convolutions of maps of a few voxels in bf16 on a CPU, where torch's are wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TINY = 2  # voxels a side


class TinyConv3d(nn.Conv3d):
    """A convolution of side 3 that computes in float32 where a side of its input on a CPU is 2 voxels or less.

    In bf16 the weights' gradient is then wrong without a word, often infinite: torch 2.13 on processors with bf16
    units, for stride 1 where the first side is 2, for stride 2 also where others are 1. The output and all other sizes
    are right. So small crops under autocast would train on noise; maps this small cost nothing in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to (N, C', X', Y', Z')."""
        if x.device.type != "cpu" or min(x.shape[2:]) > TINY or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())
