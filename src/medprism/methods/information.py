"""Mutual information between two features, by a lower bound that is learned (Ahn et al., CVPR 2019).

Variational information distillation, https://arxiv.org/abs/1904.05835: I(s; t) ≥ H(t) + E log q(t | s), where q is a
normal distribution around what a regressor makes of s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 1e-5  # variance
FIRST = 5.0  # variance of each channel before training


class Information(nn.Module):
    """−log q(t | s) up to a constant: 0.5 [(μ(s) − t)²/σ² + log σ²], with a variance σ² for each channel.

    Args:
        channels: C of both features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.regressor = nn.Sequential(
            nn.Conv3d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 1, bias=False),
        )
        self.scale = nn.Parameter(torch.full((channels,), math.log(math.expm1(FIRST - LEAST))))

    @property
    def variance(self) -> Tensor:
        """σ² of each channel: (C,)."""
        return F.softplus(self.scale) + LEAST

    def forward(self, s: Tensor, t: Tensor) -> Tensor:
        """What is missing to tell t from s, mean over elements.

        Args:
            s: (B, C, x, y, z).
            t: (B, C, x, y, z). The bound holds for a t that is given: its entropy H(t) is left out, and a t that could
                be moved would be moved to tell nothing. So a caller who is after the information detaches it.

        Returns:
            (B,).
        """
        variance = self.variance[:, None, None, None]
        cost: Tensor = (self.regressor(s).float() - t.float()) ** 2 / variance + variance.log()
        return 0.5 * cost.mean(dim=(1, 2, 3, 4))
