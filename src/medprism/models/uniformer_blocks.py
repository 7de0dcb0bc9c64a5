"""The blocks of UniFormer in 3-D (Li et al. 2022, https://arxiv.org/abs/2201.04676): local ones, then global ones."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.backbone import StemConv3d
from medprism.models.convolution import PointConv3d, TinyConv3d

Norm = Literal["group", "batch"]

GROUPS = 8
LOCAL, NEAR = 5, 3  # sides of the kernels that mix places, and that tell a voxel where it is
EXPANSION = 4  # of the multilayer perceptrons


class LastNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map, each voxel by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Embedding(nn.Module):
    """Halves a map's sides: each 2³ block of voxels becomes one, then layer normalisation.

    Args:
        in_channels: of the input; one channel may stand for all of them.
        channels: of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = StemConv3d(in_channels, channels, 2, stride=2)
        self.norm = LastNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels or 1, X, Y, Z) to (N, C, X/2, Y/2, Z/2)."""
        out: Tensor = self.norm(self.proj(x))
        return out


class Perceptron(nn.Module):
    """Two linear layers with a GELU between, `EXPANSION` times as wide; voxel by voxel where they are convolutions."""

    def __init__(self, channels: int, *, maps: bool) -> None:
        super().__init__()
        hidden = EXPANSION * channels
        self.fc1 = PointConv3d(channels, hidden) if maps else nn.Linear(channels, hidden)
        self.fc2 = PointConv3d(hidden, channels) if maps else nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) or (N, T, C) to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class LocalBlock(nn.Module):
    """A block in which a voxel attends to its neighbours with weights that are learned, not computed.

    Where it is, what is near it (a depthwise convolution of side 5 between two pointwise ones), a perceptron: each is
    added to the input.

    Args:
        channels: C.
        norm: before the second and third.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.pos_embed = TinyConv3d(channels, channels, NEAR, padding=NEAR // 2, groups=channels)
        self.norm1, self.norm2 = norm_of(channels, norm), norm_of(channels, norm)
        self.conv1, self.conv2 = PointConv3d(channels, channels), PointConv3d(channels, channels)
        self.attn = TinyConv3d(channels, channels, LOCAL, padding=LOCAL // 2, groups=channels)
        self.mlp = Perceptron(channels, maps=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to the same shape."""
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Attention(nn.Module):
    """Self-attention of all tokens to all.

    Args:
        channels: C.
        heads: C is a multiple of them.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class GlobalBlock(nn.Module):
    """A block in which a voxel attends to all others.

    Where it is (nothing else tells, so any size of map can enter), self-attention, a perceptron: each is added to the
    input.

    Args:
        channels: C.
        heads: C is a multiple of them.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.pos_embed = TinyConv3d(channels, channels, NEAR, padding=NEAR // 2, groups=channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads)
        self.mlp = Perceptron(channels, maps=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, X, Y, Z) to the same shape."""
        x = x + self.pos_embed(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        out: Tensor = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        return out


def norm_of(channels: int, norm: Norm) -> nn.Module:
    """Normalisation of a map: of groups of a sample's channels, or of each channel over the batch."""
    return nn.BatchNorm3d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def initialise(module: nn.Module) -> None:
    """Convolutions as of He et al. 2015 by their outputs, without bias; to be applied to a whole network."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
