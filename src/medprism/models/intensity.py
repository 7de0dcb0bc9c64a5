"""A learned function of intensity for each modality, before the first convolution.

What tells air from fat in PET, or soft tissues of CT apart, is a small part of the whole range of intensities, and
convolutions take thousands of steps until they look at it. A table per modality, interpolated linearly, does so from
the start; every map from one intensity to another, voxel by voxel, is then one linear layer away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

KNOTS = 32
SPREAD, LARGEST = 10.0, 8.0  # of asinh, and the largest normalised intensity: PET's SUV 20


class IntensityTable(nn.Module):
    """Normalised intensities to E channels by a piecewise linear function of asinh(10 x), one for each modality.

    It starts as the first E cosines over the range, the same for all modalities.

    Args:
        modalities: M.
        channels: E.
    """

    def __init__(self, modalities: int, channels: int) -> None:
        super().__init__()
        places = torch.linspace(0, 1, KNOTS)
        waves = torch.cos(math.pi * torch.arange(1, channels + 1)[:, None] * places)
        self.values = nn.Parameter(waves.repeat(modalities, 1, 1))

    def forward(self, x: Tensor, modality: Tensor) -> Tensor:
        """Channels (N, E, X, Y, Z) of scans (N, 1, X, Y, Z) of modalities (N,)."""
        place = torch.asinh(SPREAD * x.float()) / math.asinh(SPREAD * LARGEST)  # -1 to 1
        place = ((place + 1) / 2).clamp(0, 1) * (KNOTS - 1)
        knots = torch.arange(KNOTS, device=x.device).view(1, -1, 1, 1, 1)
        shares = (1 - (place - knots).abs()).clamp(min=0)  # of the two knots beside each intensity
        found = torch.bmm(self.values[modality], shares.flatten(2))
        return found.view(x.shape[0], -1, *x.shape[2:])
