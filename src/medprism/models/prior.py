"""The learnable biological prior 𝕆: what a representation looks up, and how the find is fused with it.

PUIR section 3.1 (https://arxiv.org/abs/2411.06106): z' = Attn(query z, key 𝕆, value 𝕆), x_h = conv(z ⊕ z').
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelRetrieval(nn.Module):
    """Attention over channels, as the authors' release does it: C tokens, whose features are the voxels of z.

    The projections fix the number of voxels, so a bottleneck of another size is resampled to the prior's and back.

    Args:
        channels: C of the bottleneck.
        size: sides of the prior in bottleneck voxels, (3, 3, 3) for 96³ patches at stride 32.

    Three heads as in the release, or fewer where three do not divide the number of voxels.
    """

    def __init__(self, channels: int, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        voxels = size[0] * size[1] * size[2]
        heads = next(number for number in (3, 2, 1) if voxels % number == 0)
        self.prior = nn.Parameter(torch.randn(1, channels, *size))
        self.attention = nn.MultiheadAttention(voxels, heads, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        """Bottleneck z (N, C, x, y, z) to what it retrieves, the same shape."""
        grid = z.shape[2:]
        query = z if grid == self.size else F.interpolate(z, size=self.size, mode="trilinear", align_corners=False)
        found = attend(self.attention, query.flatten(2), self.prior.flatten(2)).reshape(query.shape)
        if grid != self.size:
            found = F.interpolate(found, size=grid, mode="trilinear", align_corners=False)
        return found


class TokenRetrieval(nn.Module):
    """Attention over places: each voxel of z asks the prior's tokens. Works at any size of patch.

    Args:
        channels: C of the bottleneck.
        size: sides of the prior in tokens.

    Four heads, or fewer where four do not divide C.
    """

    def __init__(self, channels: int, size: tuple[int, int, int]) -> None:
        super().__init__()
        heads = next(number for number in (4, 3, 2, 1) if channels % number == 0)
        self.prior = nn.Parameter(torch.randn(1, channels, *size))
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        """Bottleneck z (N, C, x, y, z) to what it retrieves, the same shape."""
        found = attend(self.attention, z.flatten(2).transpose(1, 2), self.prior.flatten(2).transpose(1, 2))
        return found.transpose(1, 2).reshape(z.shape)


def attend(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor) -> Tensor:
    """What queries (N, L, E) find in the one memory (1, S, E) of all rows: (N, L, E).

    The module's own forward projects the memory anew for each row, and in inference copies its weights for each query.
    """
    q, k, v = attention.in_proj_weight.chunk(3)
    own, biases = query.flatten(0, 1), attention.in_proj_bias.chunk(3)
    parts = (F.linear(own, q, biases[0]), F.linear(memory[0], k, biases[1]), F.linear(memory[0], v, biases[2]))
    heads = [
        part.view(rows, -1, attention.num_heads, attention.head_dim).transpose(1, 2)
        for part, rows in zip(parts, (query.shape[0], 1, 1), strict=True)
    ]
    key, value = (part.expand(query.shape[0], -1, -1, -1) for part in heads[1:])
    found = F.scaled_dot_product_attention(heads[0], key, value).transpose(1, 2).flatten(2)
    back: Tensor = attention.out_proj(found)
    return back


class Fusion(nn.Module):
    """x_h from z and z'.

    `paper`: one 3³ convolution of concat(z, z'). `release`: z' passes two 3³ convolutions first and z is concatenated
    on both sides of it, as in the authors' code.
    """

    def __init__(self, channels: int, kind: Literal["paper", "release"]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "release":
            self.before = nn.Sequential(
                nn.Conv3d(channels, channels, 3, padding=1), nn.Conv3d(channels, channels, 3, padding=1)
            )
        self.fuse = nn.Conv3d(channels * (3 if kind == "release" else 2), channels, 3, padding=1)

    def forward(self, z: Tensor, found: Tensor) -> Tensor:
        """(N, C, x, y, z) twice to (N, C, x, y, z)."""
        parts = [z, self.before(found), z] if self.kind == "release" else [z, found]
        fused: Tensor = self.fuse(torch.cat(parts, dim=1))
        return fused


class Prior(nn.Module):
    """Retrieval from 𝕆 and fusion: z to x_h."""

    def __init__(
        self,
        channels: int,
        size: tuple[int, int, int],
        retrieval: Literal["channel", "token"] = "channel",
        fusion: Literal["paper", "release"] = "paper",
    ) -> None:
        super().__init__()
        self.retrieve: ChannelRetrieval | TokenRetrieval
        self.retrieve = (ChannelRetrieval if retrieval == "channel" else TokenRetrieval)(channels, size)
        self.fusion = Fusion(channels, fusion)

    def forward(self, z: Tensor) -> Tensor:
        """Bottleneck z (N, C, x, y, z) to x_h, the same shape."""
        fused: Tensor = self.fusion(z, self.retrieve(z))
        return fused
