"""A prism that tells the class of a person: from whatever scans there are, through features and x_h, to classes."""

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
        fusion: of the scans' features: `mean`, or `gates`, learned weights over the given scans.
        hidden: units between the pooled features and the classes.
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
        features: (N, C_l, X/s_l, Y/s_l, Z/s_l) what each of them says, fine to coarse, the last of which is x_h.
        z: (N, C, x, y, z) the encoder's bottleneck, of which x_h is made.
        owner: (N,) the subject of each.
        source: (N,) its modality.
    """

    features: list[Tensor]
    z: Tensor
    owner: Tensor
    source: Tensor

    @property
    def x_h(self) -> Tensor:
        """What the scans are aligned by."""
        return self.features[-1]

    def of(self, subset: Tensor) -> Represented:
        """Those of the scans whose modalities are in a subset (M,)."""
        rows = subset[self.source]
        features = [one[rows] for one in self.features]
        return Represented(features, self.z[rows], self.owner[rows], self.source[rows])

    def joined(self, others: Represented) -> Represented:
        """These scans and others of the same subjects."""
        features = [torch.cat(pair) for pair in zip(self.features, others.features, strict=True)]
        z, owner, source = (
            torch.cat([getattr(one, name) for one in (self, others)]) for name in ("z", "owner", "source")
        )
        return Represented(features, z, owner, source)


class Standardise(nn.Module):
    """Each channel less its running mean, over its running standard deviation.

    What all persons have in common makes up nearly all of a pooled representation: in a pre-trained network its
    channels lie 3 apart, persons 0.03. A head on top of that sees a constant, and a step that shifts a weight shifts
    all persons alike. So the common part is taken away, and from the gradient too, as batch normalisation does (before
    a linear head: He et al. 2022, https://arxiv.org/abs/2111.06377, appendix A). Unlike it, training and inference use
    the same numbers, as a batch of a few sub-volumes has no statistics to go by (after batch renormalisation, Ioffe
    2017, https://arxiv.org/abs/1702.03275).

    Args:
        channels: C.
    """

    RATE = 0.05
    """Share of the newest batch in the running numbers, once more than 1 / RATE have been seen."""

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) to the same shape, float32."""
        x = x.float()
        if self.training:
            here = x.detach().mean(dim=0)
            self._learn(x.detach(), here)
            if len(x) > 1:
                x = x - x.mean(dim=0) + here  # the same numbers, but no gradient moves all rows alike
        return (x - self.mean) * torch.rsqrt(self.variance + 1e-6)

    def _learn(self, x: Tensor, here: Tensor) -> None:
        self.batches += 1
        rate = (1 / self.batches).clamp(min=self.RATE)
        self.mean.lerp_(here, rate)
        self.variance.lerp_((x - self.mean).square().mean(dim=0), rate)


class Classifier(nn.Module):
    """Encoder and prior of a prism: their features are fused over the given scans, pooled and classified.

    Not x_h alone: what is small, as the enhancing rim of a tumour, is plain in the extremes of the finer features, and
    a bottleneck of 8 or more voxels a side need not tell of it; in a U-Net the skips carry it past.

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
        channels = self.prism.backbone.channels
        self.fusion = GatedFusion(channels, modalities) if config.fusion == "gates" else MeanFusion()
        pooled_channels = 2 * sum(channels)
        self.head = nn.Sequential(
            Standardise(pooled_channels),
            nn.Dropout(config.dropout),
            nn.Linear(pooled_channels, config.hidden),
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
        *finer, z = self.prism.encode(images[present][:, None], source)
        return Represented([*finer, self.prism.personalise(z)], z, owner, source)

    def fused(self, scans: Represented, subjects: int) -> Tensor:
        """What the scans of each of B subjects say together: mean and maximum over space, (B, 2 Σ C_l).

        Means of all levels, then maxima; the mean alone says little of something small in one place.
        """
        levels = self.fusion(scans.features, scans.owner, scans.source, subjects)
        means, maxima = [pooled(one) for one in levels], [one.float().amax(dim=(2, 3, 4)) for one in levels]
        return torch.cat([*means, *maxima], dim=1)

    def features(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled features of the given scans (B, 2 Σ C_l), which `head` classifies; arguments as for `represent`."""
        return self.fused(self.represent(images, present), len(present))

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled x_h of each present scan: (B, M, C), zero where absent."""
        return self.prism.embed(images, present)
