"""The network that all methods share: shared encoder, prior, decoder, for any set of present scans.

PUIR (Tan et al., ICCV 2025, https://arxiv.org/abs/2411.06106), section 3 and figure 3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.errors import UserError, expect
from medprism.models.backbone import Backbone, divisor, pooled
from medprism.models.intensity import IntensityTable
from medprism.models.prior import Prior
from medprism.models.residual_unet import ResidualUNet
from medprism.models.swinunetr import SwinUNETR
from medprism.models.unet import UNet
from medprism.models.uniformer import UniFormer

BACKBONES = {"unet": UNet, "swinunetr": SwinUNETR, "uniformer": UniFormer, "unet3d": ResidualUNet}


@dataclass(frozen=True)
class NetworkConfig:
    """The network's shape.

    Attributes:
        backbone: `unet` trains on a CPU, `swinunetr` is the paper's, `uniformer` and `unet3d` are BrainMVP's.
        width: channels at full resolution (unet; unet3d, 32 in BrainMVP), the feature size (swinunetr, 48 in the paper)
            or the channels of the first stage and of a head (uniformer, 64 in BrainMVP).
        levels: resolutions; the bottleneck has stride 2^(levels-1). BrainMVP has 5 of uniformer, which is all that
            there are, and 4 of unet3d; swinunetr always has its own.
        prior: how x_h is retrieved from 𝕆: `channel` as in the authors' release, `token` by place, `none` for no
            prior (x_h is then z itself).
        fusion: `paper` or `release`.
        source: how a scan enters. `repeated` over all M channels as in the paper: the network must find out by itself
            which modality it sees. `tagged`: in the channel of its modality, beside M channels that are one for it and
            zero else; it learns the imaging laws in far fewer steps.
        intensity: channels of a learned table of each modality's intensities that enter beside the scan, with
            `tagged`; 0 for none. What tells air from tissue in PET, and soft tissues of CT apart, is a small part of
            the whole range.
        norm: of uniformer's local blocks and bottleneck, `group` if not given; `batch` as in BrainMVP, for batches of
            many scans.
    """

    backbone: Literal["unet", "swinunetr", "uniformer", "unet3d"] = "unet"
    width: int = 16
    levels: int = 4
    prior: Literal["channel", "token", "none"] = "channel"
    fusion: Literal["paper", "release"] = "paper"
    source: Literal["repeated", "tagged"] = "repeated"
    intensity: int = 0
    norm: Literal["group", "batch"] | None = None

    def __post_init__(self) -> None:
        expect(self.width >= 1, "1 or more", "network.width", self.width)
        expect(2 <= self.levels <= 8, "2 to 8", "network.levels", self.levels)
        if self.backbone == "uniformer":
            expect(self.levels <= 5, "2 to 5 with uniformer", "network.levels", self.levels)
        else:
            expect(self.norm is None, f"none with {self.backbone}", "network.norm", self.norm)
        expect(self.intensity >= 0, "0 or more", "network.intensity", self.intensity)
        if self.source == "repeated":
            expect(self.intensity == 0, "0 with source=repeated", "network.intensity", self.intensity)
        if self.backbone == "swinunetr":
            expect(self.width % 12 == 0, "a multiple of 12 with swinunetr", "network.width", self.width)

    def backbone_of(self, in_channels: int, out_channels: int) -> Backbone:
        """The backbone alone, with fresh weights."""
        options: dict[str, Any] = {"width": self.width}
        if self.backbone != "swinunetr":
            options["levels"] = self.levels
        if self.norm is not None:
            options["norm"] = self.norm
        made: Backbone = BACKBONES[self.backbone](in_channels, out_channels, **options)
        return made


class Prism(nn.Module):
    """From whatever scans a subject has, through x_h, to all M modalities.

    Args:
        config: the shape.
        modalities: M, both the channels of the stem and of the output.
        patch_size: sides of the training patches in voxels; they fix the prior's size.
        outputs: channels of the output; M, to generate all modalities, if not given; 0 for a network without decoder,
            which goes as far as x_h.

    Raises:
        UserError: a patch side is no multiple of the backbone's stride.
    """

    def __init__(
        self, config: NetworkConfig, modalities: int, patch_size: tuple[int, int, int], outputs: int | None = None
    ) -> None:
        super().__init__()
        self.config, self.modalities, self.patch_size = config, modalities, tuple(patch_size)
        stem = modalities * (1 if config.source == "repeated" else 2) + config.intensity
        self.table = IntensityTable(modalities, config.intensity) if config.intensity else None
        outputs = modalities if outputs is None else outputs
        self.decodes = outputs > 0
        self.backbone = config.backbone_of(stem, outputs)
        self.divisor = divisor(self.backbone)
        if any(side % self.divisor for side in patch_size):
            raise UserError(
                f"expected patch sides that are multiples of {self.divisor}, got {tuple(patch_size)}; "
                "change patch_size or the number of levels"
            )
        size = tuple(side // self.divisor for side in patch_size)
        self.prior = (
            None if config.prior == "none" else Prior(self.backbone.channels[-1], size, config.prior, config.fusion)  # type: ignore[arg-type]
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """What `build` needs to make this network again; plain JSON."""
        shape = {"network": asdict(self.config), "modalities": self.modalities, "patch_size": list(self.patch_size)}
        return shape if self.decodes else {**shape, "outputs": 0}

    def encode(self, x: Tensor, source: Tensor) -> list[Tensor]:
        """Scans to features.

        Args:
            x: (N, 1, X, Y, Z) normalised.
            source: (N,) the modality of each, its place in the model's order.

        Returns:
            Features fine to coarse, the last of which is z.
        """
        return self.backbone.encode(self.stem_input(x, source))

    def bottleneck(self, x: Tensor, source: Tensor) -> Tensor:
        """The last of `encode`'s features alone, z, without what only the decoder needs."""
        return self.backbone.bottleneck(self.stem_input(x, source))

    def stem_input(self, x: Tensor, source: Tensor) -> Tensor:
        """Scans (N, 1, X, Y, Z) of modalities (N,) as the stem takes them (see `NetworkConfig.source`)."""
        if self.config.source == "repeated":
            return x
        rows = torch.arange(len(x), device=x.device)
        tagged = x.new_zeros((len(x), 2 * self.modalities, *x.shape[2:]))
        tagged[rows, source] = x[:, 0]
        tagged[rows, self.modalities + source] = 1
        return tagged if self.table is None else torch.cat([tagged, self.table(x, source)], dim=1)

    def stacked(self, images: Tensor, present: Tensor) -> Tensor:
        """All present scans (B, M, X, Y, Z) at once, as the stem takes them.

        With `repeated`, the channels of absent scans are the mean of the present ones (PUIR, section 4.2).
        """
        here = present[:, :, None, None, None]
        given = torch.where(here, images, 0.0)
        if self.config.source == "repeated":
            mean = given.sum(dim=1, keepdim=True) / here.sum(dim=1, keepdim=True)
            return torch.where(here, images, mean)
        parts = [given, here.expand_as(images).to(images.dtype)]
        if self.table is not None:
            owner, source = pairs(present)
            found = self.table(images[present][:, None], source)
            parts.append(found.new_zeros((len(images), *found.shape[1:])).index_add(0, owner, found))
        return torch.cat(parts, dim=1)

    def personalise(self, z: Tensor) -> Tensor:
        """Bottleneck z (N, C, x, y, z) to x_h, the same shape; without a prior x_h is z."""
        return z if self.prior is None else self.prior(z)

    def decode(self, skips: list[Tensor], x_h: Tensor) -> Tensor:
        """x_h given the source's finer features to all modalities (N, M, X, Y, Z)."""
        return self.backbone.decode([*skips, x_h])

    def forward(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One source a row: scans (N, 1, X, Y, Z) of modalities (N,) to z, x_h and images (N, M, X, Y, Z)."""
        *skips, z = self.encode(x, source)
        x_h = self.personalise(z)
        return z, x_h, self.decode(skips, x_h)

    def generate(self, images: Tensor, present: Tensor) -> Tensor:
        """All modalities from the scans that are present, in one decode.

        x_h and the skips are the means over the given sources (Algorithm 2 at inference).

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, at least one True a row.

        Returns:
            (B, M, X, Y, Z).
        """
        owner, source = pairs(present)
        *skips, z = self.encode(images[present][:, None], source)
        means = [mean_by_owner(f, owner, len(present)) for f in (*skips, self.personalise(z))]
        return self.decode(means[:-1], means[-1])

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled x_h of each present scan: (B, M, C), zero where absent."""
        x_h = self.personalise(self.bottleneck(images[present][:, None], pairs(present)[1]))
        return by_scan(pooled(x_h), present)


def pairs(present: Tensor) -> tuple[Tensor, Tensor]:
    """Row and modality of each present (subject, modality) pair, in the order of `images[present]`: (N,) each."""
    if not bool(present.any(dim=1).all()):
        raise ValueError("expected at least one present scan for every subject")
    owner, source = present.nonzero(as_tuple=True)
    return owner, source


def by_scan(vectors: Tensor, present: Tensor) -> Tensor:
    """Rows (N, C), one for each present scan, at their places: (B, M, C), zero where absent."""
    out = vectors.new_zeros((*present.shape, vectors.shape[1]))
    out[present] = vectors
    return out


def mean_by_owner(feature: Tensor, owner: Tensor, subjects: int) -> Tensor:
    """Mean of the rows (N, ...) that belong to each subject: (B, ...)."""
    if len(owner) == subjects:  # one source each, in order
        return feature
    share = F.one_hot(owner, subjects).T.to(feature.dtype)
    share = share / share.sum(dim=1, keepdim=True)
    channels_last = feature.ndim == 5 and feature.is_contiguous(memory_format=torch.channels_last_3d)
    rows = feature.movedim(1, -1) if channels_last else feature
    # A product of matrices: adding up by index takes ten times as long on CPUs, and loses the memory format.
    with torch.autocast(feature.device.type, enabled=False):
        mean = (share @ rows.flatten(1)).view(subjects, *rows.shape[1:])
    return mean.movedim(-1, 1) if channels_last else mean
