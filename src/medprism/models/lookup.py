"""The part of modality transfer that needs no network: a function of the source's intensity, voxel by voxel.

What tells air from tissue in PET, or soft tissues of CT apart, is a small part of the whole range of intensities;
convolutions take thousands of steps until they look at it, and with few pairs of scans may never. Here each pair of
modalities has a table, interpolated linearly, and the decoder has only to correct what it gives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

KNOTS = 32
SPREAD, LARGEST = 10.0, 8.0  # of asinh, and the largest normalised intensity: PET's SUV 20
GAIN = 4.0  # of the tables' values, so that a step of the optimiser moves them enough


class LookupTables(nn.Module):
    """Normalised intensities of a source to those of all M modalities, piecewise linear in asinh(10 x); 0 at start.

    Args:
        modalities: M.
    """

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(modalities, modalities, KNOTS))  # source, target

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(N, M, X, Y, Z) from scans (N, 1, X, Y, Z) of modalities (N,)."""
        place = torch.asinh(SPREAD * x.float()) / math.asinh(SPREAD * LARGEST)  # -1 to 1
        place = ((place + 1) / 2).clamp(0, 1) * (KNOTS - 1)
        knots = torch.arange(KNOTS, device=x.device).view(1, -1, 1, 1, 1)
        shares = (1 - (place - knots).abs()).clamp(min=0)  # of the two knots beside each intensity
        found = torch.bmm(GAIN * self.values[source], shares.flatten(2))
        return found.view(len(x), -1, *x.shape[2:])
