"""A transformer over the voxels of a bottleneck, with places that it learns and tokens that it can leave out.

mmFormer (Zhang et al. 2022, https://arxiv.org/abs/2206.02425), section 2.2, equations 1 to 4.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TransformerLayer(nn.Module):
    """Attention of all tokens to all, then two linear layers with GELU; each normalises first and adds its result.

    Args:
        dim: channels of a token.
        heads: of the attention; they divide `dim`.
        mlp: units between the linear layers.
        dropout: share of the attention's weights, of both results and of the units that is left out in training.
    """

    def __init__(self, dim: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, mlp), nn.Linear(mlp, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, here: Tensor | None = None) -> Tensor:
        """Tokens that have seen each other.

        Args:
            tokens: (N, T, D).
            here: (N, T) bool, the tokens that may be looked at, at least one a row; all, if not given.

        Returns:
            (N, T, D).
        """
        tokens = tokens + self._attention(self.norm1(tokens), here)
        units = self.dropout(F.gelu(self.up(self.norm2(tokens))))
        return cast(Tensor, tokens + self.dropout(self.down(units)))

    def _attention(self, x: Tensor, here: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if here is None else here[:, None, None, :]
        seen = F.scaled_dot_product_attention(q, k, v, mask, self.rate if self.training else 0.0)
        return cast(Tensor, self.dropout(self.out(seen.transpose(1, 2).flatten(2))))


class TokenTransformer(nn.Module):
    """Layers before each of which the places of the tokens are added.

    Args:
        dim: channels of a token.
        heads: of the attention.
        mlp: units between the linear layers.
        depth: number of layers.
        dropout: see `TransformerLayer`.
    """

    def __init__(self, dim: int, heads: int, mlp: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(dim, heads, mlp, dropout) for _ in range(depth))

    def forward(self, tokens: Tensor, places: Tensor, here: Tensor | None = None) -> Tensor:
        """(N, T, D) to the same shape.

        Args:
            tokens: (N, T, D).
            places: (T, D), or (N, T, D).
            here: (N, T) bool, the tokens that may be looked at; all, if not given.
        """
        for layer in self.layers:
            tokens = layer(tokens + places, here)
        return tokens


class Places(nn.Module):
    """What each place of a grid adds to its token: learned, from zero, one table a modality.

    Args:
        modalities: M.
        dim: D, channels of a token.
        grid: tokens along each axis of a training patch.
    """

    def __init__(self, modalities: int, dim: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(modalities, dim, *grid))

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """The tables for a grid (x, y, z), interpolated trilinearly if it is another: (M, xyz, D), z fastest."""
        table: Tensor = self.table
        if tuple(table.shape[2:]) != tuple(grid):
            table = F.interpolate(table, size=grid, mode="trilinear")
        return table.flatten(2).transpose(1, 2)
