"""A prism that tells the class of a person: from whatever scans there are, through x_h, to classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medprism.errors import expect
from medprism.models.backbone import pooled
from medprism.models.fusion import GatedFusion, MeanFusion
from medprism.models.prism import NetworkConfig, Prism, pairs


@dataclass(frozen=True)
class ClassifierConfig:
    """From the representations of several scans to classes.

    Attributes:
        fusion: of the scans' x_h: `mean`, or `gates`, learned weights over the given scans.
        hidden: units between the pooled x_h and the classes.
        dropout: share of the pooled channels and of these units that is left out in training.
    """

    fusion: Literal["mean", "gates"] = "mean"
    hidden: int = 64
    dropout: float = 0.2

    def __post_init__(self) -> None:
        expect(self.hidden >= 1, "1 or more", "classifier.hidden", self.hidden)
        expect(0 <= self.dropout < 1, "0 to below 1", "classifier.dropout", self.dropout)


@dataclass(frozen=True)
class Represented:
    """N given scans.

    Attributes:
        x_h: (N, C, x, y, z) what each of them says.
        owner: (N,) the subject of each.
        source: (N,) its modality.
    """

    x_h: Tensor
    owner: Tensor
    source: Tensor


class Classifier(nn.Module):
    """Encoder and prior of a prism, whose x_h is fused over the given scans, pooled and classified.

    Args:
        network: shape of the prism; it has no decoder here.
        config: what follows it.
        modalities: M.
        classes: K.
        patch_size: sides of the training patches in voxels.

    Raises:
        UserError: a patch side is no multiple of the backbone's stride.
    """

    def __init__(
        self,
        network: NetworkConfig,
        config: ClassifierConfig,
        modalities: int,
        classes: int,
        patch_size: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.prism = Prism(network, modalities, patch_size, outputs=0)
        channels = self.prism.backbone.channels[-1]
        self.fusion = GatedFusion([channels], modalities) if config.fusion == "gates" else MeanFusion()
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(2 * channels, config.hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, classes),
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """What `build` needs to make this network again; plain JSON."""
        return {**self.prism.architecture, "classifier": asdict(self.config), "classes": self.classes}

    def forward(self, images: Tensor, present: Tensor) -> tuple[Tensor, Represented]:
        """Logits (B, K), and what they were made of; arguments as for `represent`."""
        scans = self.represent(images, present)
        logits: Tensor = self.head(self.fused(scans, len(present)))
        return logits, scans

    def represent(self, images: Tensor, present: Tensor) -> Represented:
        """What each scan says by itself.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, at least one True a row.
        """
        owner, source = pairs(present)
        z = self.prism.bottleneck(images[present][:, None], source)
        return Represented(self.prism.personalise(z), owner, source)

    def fused(self, scans: Represented, subjects: int) -> Tensor:
        """What the scans of each of B subjects say together: mean and maximum over space, (B, 2 C).

        The mean alone says little of something small in one place.
        """
        x_h = self.fusion([scans.x_h], scans.owner, scans.source, subjects)[0]
        return torch.cat([pooled(x_h), x_h.float().amax(dim=(2, 3, 4))], dim=1)

    def features(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled x_h over the given scans (B, 2 C), which `head` classifies; arguments as for `represent`."""
        return self.fused(self.represent(images, present), len(present))

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled x_h of each present scan: (B, M, C), zero where absent."""
        return self.prism.embed(images, present)
