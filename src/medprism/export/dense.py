"""Networks of the prism for graphs: every scan of every subject takes the same way, `present` only picks.

In training and inference absent scans are left out of the arithmetic, so that the number of rows depends on what is
present. A graph that is traced once has to do the same operations for any subset. Here all M scans of a subject are
encoded, zeros in the place of absent ones, and what came of these is left out where scans are fused: more arithmetic,
the same numbers.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.models.backbone import pooled
from medprism.models.classifier import Classifier
from medprism.models.fusion import GatedFusion, MeanFusion
from medprism.models.prism import Prism
from medprism.models.segmenter import Segmenter


class DensePrism(nn.Module):
    """A prism's encoder and prior on all M scans at once.

    Args:
        prism: whose; shared, not copied.
    """

    tags: Tensor

    def __init__(self, prism: Prism) -> None:
        super().__init__()
        self.prism = prism
        self.register_buffer("tags", torch.eye(prism.modalities)[None, :, :, None, None, None], persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each scan says: of images (B, M, X, Y, Z) features (B, M, C_l, x, y, z), fine to coarse, x_h last.

        Args:
            images: finite everywhere; what is made of an absent scan is to be left out.
        """
        *finer, z = self.prism.backbone.encode(self._one_by_one(images))
        levels = (*finer, self.prism.personalise(z))
        return [level.unflatten(0, (-1, images.shape[1])) for level in levels]  # type: ignore[no-untyped-call]

    def together(self, images: Tensor, present: Tensor) -> list[Tensor]:
        """Features (B, C_l, x, y, z) of all present scans through the stem at once, x_h last; absent ones are zero."""
        *finer, z = self.prism.backbone.encode(self._stacked(images, present))
        return [*finer, self.prism.personalise(z)]

    def _one_by_one(self, images: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z) as the stem takes single ones: (B·M, channels, X, Y, Z)."""
        if self.prism.config.source == "repeated":
            return images.flatten(0, 1)[:, None]
        scans = images[:, :, None] * self.tags
        parts = [scans, self.tags.expand_as(scans), *self._tables(images)]
        return torch.cat(parts, dim=2).flatten(0, 1)

    def _stacked(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z) as the stem takes several: (B, channels, X, Y, Z)."""
        here = present[:, :, None, None, None]
        if self.prism.config.source == "repeated":
            return torch.where(here, images, images.sum(dim=1, keepdim=True) / here.sum(dim=1, keepdim=True))
        found = [torch.where(here[:, :, None], table, 0.0).sum(dim=1) for table in self._tables(images)]
        return torch.cat([images, here.expand_as(images).to(images.dtype), *found], dim=1)

    def _tables(self, images: Tensor) -> list[Tensor]:
        """What the table of intensities makes of each scan, (B, M, E, X, Y, Z); nothing without one."""
        table = self.prism.table
        if table is None:
            return []
        made = []
        for modality in range(self.prism.modalities):
            scan = images[:, modality, None]
            made.append(table(scan, torch.full_like(scan[:, 0, 0, 0, 0], modality, dtype=torch.long)))
        return [torch.stack(made, dim=1)]


class DenseFusion(nn.Module):
    """A fusion of scans, the features of all M of which are there.

    Args:
        fusion: the one that was trained.
    """

    def __init__(self, fusion: MeanFusion | GatedFusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, features: list[Tensor], present: Tensor) -> list[Tensor]:
        """Features (B, M, C_l, ...) to (B, C_l, ...), the means over those present (B, M), or weighted ones."""
        if isinstance(self.fusion, MeanFusion):
            return [mean(level, present) for level in features]
        gated = self.fusion
        return [
            _weighed(level, present, maps, shifts, cast(nn.Conv3d, gate))
            for level, maps, shifts, gate in zip(features, gated.maps, gated.shifts, gated.gates, strict=True)
        ]


def mean(feature: Tensor, present: Tensor) -> Tensor:
    """Mean over the present scans: (B, M, ...) and (B, M) to (B, ...)."""
    here = present.view(*present.shape, *[1] * (feature.ndim - 2))
    return torch.where(here, feature, 0.0).sum(dim=1) / here.sum(dim=1)


def _weighed(feature: Tensor, present: Tensor, maps: Tensor, shifts: Tensor, gate: nn.Conv3d) -> Tensor:
    """One level of `GatedFusion`: (B, M, C, x, y, z) to (B, C, x, y, z)."""
    modalities, channels = maps.shape[:2]
    rows = feature.flatten(1, 2)  # the channels of modality after modality: one group each
    kernel = maps.flatten(0, 1)[:, :, None, None, None]
    mapped = F.conv3d(rows, kernel, shifts.flatten(), groups=modalities)
    mapped = mapped.unflatten(1, (modalities, channels))  # type: ignore[no-untyped-call]
    score = F.conv3d(rows, gate.weight, gate.bias, groups=modalities)  # each modality by its own gate
    here = present[:, :, None, None, None]
    weight = torch.where(here, torch.exp(10 * torch.tanh(score / 10)), 0.0)
    total = torch.where(here[:, :, None], weight[:, :, None] * mapped, 0.0).sum(dim=1)
    return total / weight.sum(dim=1, keepdim=True)


class DenseTransfer(nn.Module):
    """All modalities (B, M, X, Y, Z) from those present; see `Prism.generate`."""

    def __init__(self, prism: Prism) -> None:
        super().__init__()
        self.scans = DensePrism(prism)

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to all modalities."""
        *skips, x_h = (mean(level, present) for level in self.scans.features(images))
        return self.scans.prism.decode(skips, x_h)


class DenseSegmenter(nn.Module):
    """Logits (B, K, X, Y, Z) from the scans present; see `Segmenter.segment`."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.config = segmenter.config
        self.scans, self.fusion = DensePrism(segmenter.prism), DenseFusion(segmenter.fusion)

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to logits."""
        if self.config.combine == "channels":
            features = self.scans.together(images, present)
        else:
            features = self.fusion(self.scans.features(images), present)
        return self.scans.prism.backbone.decode(features)


class DenseClassifier(nn.Module):
    """Pooled features (B, 2 Σ C_l) from the scans present; see `Classifier.features`."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.scans, self.fusion = DensePrism(classifier.prism), DenseFusion(classifier.fusion)

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to what the head takes."""
        levels = self.fusion(self.scans.features(images), present)
        return torch.cat([*map(pooled, levels), *(level.amax(dim=(2, 3, 4)) for level in levels)], dim=1)
