"""Convolutions and an encoder of the RFNet family: normalise, activate, convolve, at five levels.

RFNet (Ding et al. 2021) and mmFormer (Zhang et al. 2022, https://arxiv.org/abs/2206.02425), section 2.1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.convolution import TinyConv3d

LEVELS = 5


class PaddedConv3d(TinyConv3d):
    """A convolution with a kernel of 3, or of 1.

    Args:
        inputs: C.
        outputs: C'.
        kernel: 3 or 1.
        stride: s.
        edge: what a kernel of 3 finds beyond the image: its reflection, or zeros.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, edge: Literal["reflect", "zeros"] = "reflect"
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=1 if kernel == 3 and edge == "zeros" else 0)
        self.mirrors = kernel == 3 and edge == "reflect"
        nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to (N, C', X/s, Y/s, Z/s)."""
        x = reflected(x) if self.mirrors else x
        # The layout in which 3-D convolutions on CPUs are fastest.
        out: Tensor = super().forward(x.contiguous(memory_format=torch.channels_last_3d))
        return out


class PreNormConv3d(PaddedConv3d):
    """Instance normalisation without parameters, leaky ReLU (0.2), convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to (N, C', X/s, Y/s, Z/s)."""
        # One group a channel is instance normalisation. Of channels-last tensors torch's CPU kernel adds the voxels up
        # one by one in float32, which at 128³ is wrong in the third digit.
        x = torch.group_norm(x.contiguous(), x.shape[1])
        return super().forward(F.leaky_relu(x, 0.2, inplace=True))


class ConvEncoder(nn.Module):
    """Features of one modality at five levels, each of half the size of the one before.

    A level is a convolution, with stride 2 but in the first, and a residual pair of convolutions.

    Args:
        inputs: channels of the image.
        channels: of each level, fine to coarse.
    """

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        entries: list[nn.Module] = [PaddedConv3d(inputs, channels[0])]
        entries += [PreNormConv3d(a, b, stride=2) for a, b in pairwise(channels)]
        self.entries = nn.ModuleList(entries)
        self.pairs = nn.ModuleList(nn.Sequential(PreNormConv3d(c, c), PreNormConv3d(c, c)) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, X, Y, Z) to five features (N, C_l, X/2^l, Y/2^l, Z/2^l), fine to coarse."""
        features = []
        for entry, pair in zip(self.entries, self.pairs, strict=True):
            x = entry(x)
            x = x + pair(x)
            features.append(x)
        return features


def reflected(x: Tensor) -> Tensor:
    """(N, C, X, Y, Z) with one more voxel on each side, of the same values mirrored at the edge.

    Where an axis has a single voxel there is nothing to mirror, and the voxel is repeated.
    """
    single = [x.shape[axis] == 1 for axis in (4, 3, 2)]  # in the order in which `pad` takes them
    if not any(single):
        return F.pad(x, (1,) * 6, mode="reflect")
    if not all(single):
        x = F.pad(x, [0 if one else 1 for one in single for _ in range(2)], mode="reflect")
    return F.pad(x, [1 if one else 0 for one in single for _ in range(2)], mode="replicate")
