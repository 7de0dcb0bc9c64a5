"""SwinUNETR's window attention in operations that a graph has."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from medprism.models.window_attention import WindowAttention

Network = TypeVar("Network", bound=nn.Module)


class PlainAttention(WindowAttention):
    """All windows at once, softmax written out; the same parameters and numbers."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Windows (b, n, C), and what may not see each other in shifted ones (w, n, n), to (b, n, C)."""
        n = x.shape[1]
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        index = self.relative_position_index[:n, :n].reshape(-1)  # type: ignore[index]
        bias = self.relative_position_bias_table[index].reshape(n, n, -1).permute(2, 0, 1)
        scores = (q * self.scale) @ k.mT + bias
        if mask is not None:
            scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)
        projected: Tensor = self.proj((torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2))
        return projected


def plain(network: Network) -> Network:
    """The network with `PlainAttention` in the place of each `WindowAttention`; changed in place."""
    for module in network.modules():
        if type(module) is WindowAttention:
            module.__class__ = PlainAttention
    return network
