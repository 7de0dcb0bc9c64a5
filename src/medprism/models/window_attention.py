"""Attention within windows that never holds all its weights at once.

MONAI's blocks write the (windows, heads, n, n) weights to memory and keep them for the backward pass: at n = 343 tokens
that is most of SwinUNETR's memory, and on CPUs most of its time goes into moving them. Here a few windows at a time are
worked through while they are in the processor's cache, and the weights are computed again in the backward pass (Dao et
al. 2022, https://arxiv.org/abs/2205.14135, section 3.1). On GPUs PyTorch's own fused attention does it.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets.swin_unetr import WindowAttention as MonaiWindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

CACHE = 2**20  # numbers of a window's weights that are worked on at once: 4 MB


class WindowAttention(MonaiWindowAttention):
    """MONAI's window attention, the same parameters and numbers."""

    @classmethod
    def like(cls, attention: MonaiWindowAttention) -> WindowAttention:
        """The same attention, its parameters shared."""
        if attention.attn_drop.p or attention.proj_drop.p:
            raise ValueError("expected attention without dropout")
        bias = attention.qkv.bias is not None
        made = cls(attention.dim, attention.num_heads, attention.window_size, qkv_bias=bias)
        made.relative_position_bias_table = attention.relative_position_bias_table
        made.qkv, made.proj = attention.qkv, attention.proj
        return made

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Windows (b, n, C), and what may not see each other in shifted ones (w, n, n), to (b, n, C)."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        assert isinstance(self.relative_position_index, Tensor)
        index = self.relative_position_index[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].reshape(n, n, -1).permute(2, 0, 1).contiguous()
        if x.device.type == "cpu":
            out: Tensor = _Chunked.apply(q, k, v, bias.to(q.dtype), mask, self.scale)  # type: ignore[no-untyped-call]
        else:
            every = bias[None] if mask is None else (bias[None] + mask[:, None]).repeat(b // len(mask), 1, 1, 1)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=every.to(q.dtype), scale=self.scale)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(b, n, c))
        return projected


def lean(network: nn.Module) -> None:
    """Put `WindowAttention` in the place of each of MONAI's in a network; names and parameters stay."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is MonaiWindowAttention:
                setattr(module, name, WindowAttention.like(child))


class _Chunked(torch.autograd.Function):
    """softmax(scale q kᵀ + bias + mask) v, a few windows at a time."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        out = torch.empty_like(q)
        for some, part in _parts(q, mask):
            out[some] = _weights(q[some], k[some], bias, part, scale) @ v[some]
        ctx.save_for_backward(q, k, v, bias, mask, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, bias, mask, out = ctx.saved_tensors
        of_q, of_k, of_v = (torch.empty_like(x) for x in (q, k, v))
        of_bias = torch.zeros_like(bias, dtype=torch.float32)
        shift = (grad * out).sum(dim=-1, keepdim=True)
        for some, part in _parts(q, mask):
            weights = _weights(q[some], k[some], bias, part, ctx.scale)
            of_v[some] = weights.mT @ grad[some]
            of_score = (grad[some] @ v[some].mT - shift[some]) * weights
            of_bias += of_score.sum(dim=0)
            of_q[some] = (of_score @ k[some]) * ctx.scale
            of_k[some] = (of_score.mT @ q[some]) * ctx.scale
        return of_q, of_k, of_v, of_bias.to(bias.dtype), None, None


def _parts(q: Tensor, mask: Tensor | None) -> list[tuple[slice, Tensor | None]]:
    """A few of all windows at a time, with their masks (some, 1, n, n)."""
    b, heads, n, _ = q.shape
    size = max(1, CACHE // (heads * n * n))
    parts: list[tuple[slice, Tensor | None]] = []
    for first in range(0, b, size):
        some = slice(first, min(first + size, b))
        which = None if mask is None else torch.arange(some.start, some.stop, device=q.device) % len(mask)
        parts.append((some, None if mask is None or which is None else mask[which][:, None]))
    return parts


def _weights(q: Tensor, k: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = (q * scale) @ k.mT
    scores += bias
    if mask is not None:
        scores += mask.to(scores.dtype)
    return torch.softmax(scores, dim=-1)
