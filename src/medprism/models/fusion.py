"""From the features of several scans of a person to one: by a mean, or by weights that are learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.prism import mean_by_owner


class MeanFusion(nn.Module):
    """The mean over the given scans (PUIR, Algorithm 2)."""

    def forward(self, features: list[Tensor], owner: Tensor, source: Tensor, subjects: int) -> list[Tensor]:
        """Features (N, C_l, ...) of N scans to (B, C_l, ...).

        Args:
            features: any number of levels.
            owner: (N,) subject of each scan.
            source: (N,) its modality; not looked at.
            subjects: B.
        """
        return [mean_by_owner(feature, owner, subjects) for feature in features]


class GatedFusion(nn.Module):
    """A weighted mean over the given scans: what each modality has to say, and how much it counts, voxel by voxel.

    Each modality's features pass a linear map of its own, which starts as the identity, and get a weight by a softmax
    over the given scans, which starts as equal. So fusion starts as the mean, and one scan alone is never weighed.

    Args:
        channels: of each level, fine to coarse.
        modalities: M.
    """

    def __init__(self, channels: Sequence[int], modalities: int) -> None:
        super().__init__()
        self.maps = nn.ParameterList(torch.eye(c).repeat(modalities, 1, 1) for c in channels)
        self.shifts = nn.ParameterList(torch.zeros(modalities, c) for c in channels)
        self.gates = nn.ModuleList(_equal(nn.Conv3d(c, modalities, 1)) for c in channels)

    def forward(self, features: list[Tensor], owner: Tensor, source: Tensor, subjects: int) -> list[Tensor]:
        """Features (N, C_l, ...) of N scans to (B, C_l, ...).

        Args:
            features: one per level of `channels`.
            owner: (N,) subject of each scan.
            source: (N,) its modality.
            subjects: B.
        """
        levels = zip(features, self.maps, self.shifts, self.gates, strict=True)
        return [self._fused(f, m, s, gate, owner, source, subjects) for f, m, s, gate in levels]

    @staticmethod
    def _fused(
        feature: Tensor, maps: Tensor, shifts: Tensor, gate: nn.Module, owner: Tensor, source: Tensor, subjects: int
    ) -> Tensor:
        mapped = torch.empty_like(feature)
        for modality in sorted(set(source.tolist())):
            rows = source == modality
            kernel = maps[modality][:, :, None, None, None]
            mapped[rows] = F.conv3d(feature[rows], kernel, shifts[modality]).to(mapped.dtype)
        if len(owner) == subjects:  # one scan each, in order
            return mapped
        score = gate(feature)[torch.arange(len(source), device=source.device), source][:, None].float()
        # At most 20 apart, so that exp needs no maximum over each subject's scans.
        weight = torch.exp(10 * torch.tanh(score / 10))
        shape = (subjects, *feature.shape[1:])
        total = feature.new_zeros(shape, dtype=torch.float32).index_add(0, owner, weight * mapped.float())
        weights = feature.new_zeros((subjects, 1, *feature.shape[2:]), dtype=torch.float32)
        return (total / weights.index_add(0, owner, weight)).to(feature.dtype)


def _equal(gate: nn.Conv3d) -> nn.Conv3d:
    """A gate that gives all scans the same weight."""
    nn.init.zeros_(gate.weight)
    if gate.bias is not None:
        nn.init.zeros_(gate.bias)
    return gate
