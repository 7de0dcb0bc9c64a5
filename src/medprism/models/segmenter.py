"""A prism that segments: from whatever scans there are, through x_h, to classes (PUIR, section 3.2, Algorithm 2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn

from medprism.errors import expect
from medprism.models.convolution import PointConv3d
from medprism.models.fusion import GatedFusion, MeanFusion
from medprism.models.prism import NetworkConfig, Prism, pairs


@dataclass(frozen=True)
class SegmenterConfig:
    """How several scans become one segmentation.

    Attributes:
        combine: `fused`: each scan is encoded by itself and their features are fused (Algorithm 2); `channels`: all
            enter the stem at once, in one pass. With `network.source: repeated` the channels of absent scans are
            filled by the mean of those that are given, with `tagged` they are empty.
        fusion: of the features, with `fused`: `mean`, or `gates`, learned weights over the given scans.
        deep_supervision: number of coarser decoder levels that are trained too, each with half the weight of the
            finer one.
    """

    combine: Literal["fused", "channels"] = "fused"
    fusion: Literal["mean", "gates"] = "gates"
    deep_supervision: int = 0

    def __post_init__(self) -> None:
        expect(self.deep_supervision >= 0, "0 or more", "segmenter.deep_supervision", self.deep_supervision)


@dataclass(frozen=True)
class Segmented:
    """What a pass gives in training.

    Attributes:
        logits: (B, K, X, Y, Z), then those of coarser levels.
        x_h: (N, C, x, y, z) representation of each of N given scans, with `fused`; None with `channels`.
        owner: (N,) the subject of each.
        z: (N, C, x, y, z) the encoder's bottleneck of each of them; with `channels` (B, C, x, y, z) of each subject.
    """

    logits: list[Tensor]
    x_h: Tensor | None
    owner: Tensor
    z: Tensor


class Segmenter(nn.Module):
    """A prism with classes for modalities in its output.

    Args:
        network: shape of the prism.
        config: how scans are combined.
        modalities: M.
        classes: K, the background included.
        patch_size: sides of the training patches in voxels.

    Raises:
        UserError: a patch side is no multiple of the backbone's stride, or there are not as many levels.
    """

    def __init__(
        self,
        network: NetworkConfig,
        config: SegmenterConfig,
        modalities: int,
        classes: int,
        patch_size: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.prism = Prism(network, modalities, patch_size, outputs=classes)
        channels = self.prism.backbone.channels
        expect(
            config.deep_supervision < len(channels) - 1,
            f"fewer than {len(channels) - 1} coarser levels",
            "segmenter.deep_supervision",
            config.deep_supervision,
        )
        self.fusion = GatedFusion(channels, modalities) if self._gated else MeanFusion()
        self.coarse_heads = nn.ModuleList(PointConv3d(c, classes) for c in channels[1 : 1 + config.deep_supervision])

    @property
    def _gated(self) -> bool:
        return self.config.combine == "fused" and self.config.fusion == "gates"

    @property
    def architecture(self) -> dict[str, Any]:
        """What `build` needs to make this network again; plain JSON."""
        return {**self.prism.architecture, "segmenter": asdict(self.config), "classes": self.classes}

    def forward(self, images: Tensor, present: Tensor) -> Segmented:
        """Classes from the scans that are present.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, at least one True a row.
        """
        prism = self.prism
        owner, source = pairs(present)
        x_h = None
        if self.config.combine == "channels":
            *skips, z = prism.backbone.encode(prism.stacked(images, present))
            features = [*skips, prism.personalise(z)]
        else:
            *skips, z = prism.encode(images[present][:, None], source)
            x_h = prism.personalise(z)
            features = self.fusion([*skips, x_h], owner, source, len(present))
        fine, *coarse = prism.backbone.decoded(features)
        logits = [prism.backbone.head(fine)]
        logits += [head(feature) for head, feature in zip(self.coarse_heads, coarse, strict=False)]
        return Segmented(logits, x_h, owner, z)

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z) from images (B, M, X, Y, Z) where `present` (B, M)."""
        logits: list[Tensor] = self(images, present).logits
        return logits[0]

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled x_h of each present scan: (B, M, C), zero where absent."""
        return self.prism.embed(images, present)
