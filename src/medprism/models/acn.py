"""ACN: a network that sees all scans teaches one that sees some of them, both trained at once.

Wang et al., Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities, MICCAI 2021,
https://arxiv.org/abs/2106.14591. What the two learn from each other is in `medprism.methods.acn`. MedMAP (Liu et al.,
https://arxiv.org/abs/2408.09465, Eq. 17) encodes and aligns the scans of the full path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medprism.data.modalities import lookup
from medprism.errors import UserError, expect
from medprism.models.backbone import pooled
from medprism.models.modality_encoder import EncoderConfig, ModalityEncoder
from medprism.models.prism import pairs
from medprism.models.residual_unet import ResidualUNet


@dataclass(frozen=True)
class ACNConfig:
    """The pair of networks.

    Attributes:
        width: channels of both at full resolution.
        given: the scans that the incomplete path serves, as published: one pair of networks for each subset. Empty:
            one pair for all subsets, drawn anew for each sub-volume in each step.
    """

    width: int = 16
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expect(self.width >= 2, "2 or more", "acn.width", self.width)
        object.__setattr__(self, "given", tuple(self.given))  # JSON has lists


@dataclass(frozen=True)
class Paths:
    """What both networks make of a batch.

    Attributes:
        full, incomplete: (B, K, X, Y, Z) logits, background first and zero (see `ACN`).
        full_z, incomplete_z: (B, C, x, y, z) bottlenecks.
        encoded: (B, M, C', X, Y, Z) each scan as the full path takes it, zero where absent.
    """

    full: Tensor
    incomplete: Tensor
    full_z: Tensor
    incomplete_z: Tensor
    encoded: Tensor


class ACN(nn.Module):
    """Two U-Nets: the full path for training, the incomplete path for use.

    Each class but the background has a sigmoid, as published. A voxel belongs to the class with the largest one, or to
    the background if none exceeds 1/2, which is what cutting them at 1/2 gives, with overlaps settled. So the class
    logits a_k with a 0 for the background before them are logits whose argmax is the segmentation, of any number of
    classes. (The release has a fourth sigmoid for the background, which none of its segmentation losses trains.)

    Args:
        config: of the pair.
        alignment: how scans enter the full path.
        modalities: M.
        classes: K, the background included.
        patch_size: sides of the training patches in voxels.
        names: of the M modalities in order; needed for `config.given`.

    Raises:
        UserError: a patch side is no multiple of 8; `given` names what is not among the modalities; a leaking encoder,
            which cannot leak here as the path in use has none.
    """

    def __init__(
        self,
        config: ACNConfig,
        alignment: EncoderConfig,
        modalities: int,
        classes: int,
        patch_size: tuple[int, int, int],
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.config, self.alignment, self.names = config, alignment, tuple(names)
        self.modalities, self.classes = modalities, classes
        self.patch_size = patch_size[0], patch_size[1], patch_size[2]
        if alignment.leaks:
            raise UserError(
                "expected an encoder that does not leak with acn, whose path in use has none, got leaks; leave it out"
            )
        self.places = _places(config.given, self.names) if config.given else list(range(modalities))
        self.encoder = ModalityEncoder(alignment, modalities)
        self.full = ResidualUNet(modalities * self.encoder.channels, classes - 1, config.width)
        self.incomplete = ResidualUNet(len(self.places), classes - 1, config.width)
        self.channels, self.divisor = self.full.channels[-1], self.full.strides[-1]
        if any(side % self.divisor for side in patch_size):
            raise UserError(
                f"expected patch sides that are multiples of {self.divisor}, got {tuple(patch_size)}; "
                "change patches.size"
            )

    @property
    def architecture(self) -> dict[str, Any]:
        """What `build` needs to make this network again; plain JSON."""
        return {
            "acn": {**asdict(self.config), "given": list(self.config.given)},
            "alignment": asdict(self.alignment),
            "modalities": self.modalities,
            "classes": self.classes,
            "patch_size": list(self.patch_size),
            "names": list(self.names),
        }

    def only(self, present: Tensor) -> Tensor:
        """Those of the scans (..., M) that the incomplete path takes, bool."""
        taken = torch.zeros_like(present)
        taken[..., self.places] = present[..., self.places]
        return taken

    def serves(self, present: Tensor) -> Tensor:
        """Subjects with scans (B, M) for which there is an incomplete path: (B,) bool. All, if none is fixed."""
        if not self.config.given:
            return torch.ones_like(present[:, 0])
        return present[:, self.places].all(dim=1)

    def forward(
        self, images: Tensor, present: Tensor, given: Tensor, kept: tuple[Tensor, Tensor] | None = None
    ) -> Paths:
        """Both paths; for training.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, what the full path sees; scans that a subject lacks are zero.
            given: (B, M) bool, what the incomplete path sees, part of `present`.
            kept: (B, C) factors on the channels of the bottlenecks, full and incomplete, that the decoders see.
        """
        encoded = self.encoder(images, present)
        full = self.full.encode(encoded.flatten(1, 2))
        incomplete = self.incomplete.encode(self._stacked(images, given))
        logits = []
        for path, features, factors in zip(
            (self.full, self.incomplete), (full, incomplete), kept or (None, None), strict=True
        ):
            *skips, z = features
            z = z if factors is None else z * factors[:, :, None, None, None].to(z.dtype)
            logits.append(_with_background(path.decode([*skips, z])))
        return Paths(logits[0], logits[1], full[-1], incomplete[-1], encoded)

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits of the incomplete path, also where a subject has all scans; the full path is never run.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, at least one True a row.

        Returns:
            (B, K, X, Y, Z).

        Raises:
            UserError: the network serves one subset, and this is another.
        """
        pairs(present)  # refuses a subject without scans
        if self.config.given:
            wanted = self.only(torch.ones_like(present))
            if not torch.equal(present, wanted):
                row = present[(present != wanted).any(dim=1)][0].tolist()
                got = " + ".join(name for name, here in zip(self.names, row, strict=True) if here)
                raise UserError(
                    f"expected {' + '.join(self.names[place] for place in self.places)}, the one subset that this "
                    f"network was made for, got {got}; give these scans, or train with an empty acn.given"
                )
        return _with_background(self.incomplete.decode(self.incomplete.encode(self._stacked(images, present))))

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled bottleneck of the incomplete path given one scan alone: (B, M, C), zero where absent or not taken."""
        owner, source = pairs(present)
        alone = torch.zeros((len(owner), self.modalities), dtype=torch.bool, device=present.device)
        alone[torch.arange(len(owner), device=present.device), source] = True
        taken = self.only(alone).any(dim=1)
        owner, source, alone = owner[taken], source[taken], alone[taken]
        out = torch.zeros((*present.shape, self.channels), device=images.device)
        if len(owner):
            out[owner, source] = pooled(self.incomplete.encode(self._stacked(images[owner], alone))[-1])
        return out

    def scan_maps(self, images: Tensor, present: Tensor) -> Tensor:
        """Bottleneck of the full path given each of N present scans alone, behind its encoder: (N, C, x, y, z).

        It is the full path in which scans are aligned; the path in use is aligned by what it learns from that one.
        """
        owner, source = pairs(present)
        alone = torch.zeros((len(owner), self.modalities), dtype=torch.bool, device=present.device)
        alone[torch.arange(len(owner), device=present.device), source] = True
        return self.full.encode(self.encoder(images[owner], alone).flatten(1, 2))[-1]

    def _stacked(self, images: Tensor, given: Tensor) -> Tensor:
        """The given ones of the scans that the incomplete path takes, the others zero: (B, M', X, Y, Z)."""
        here = given[:, self.places, None, None, None]
        return torch.where(here, images[:, self.places], 0.0)


def _places(given: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where the given modalities are among all of them, in the order of these.

    Raises:
        UserError: one is not among them, or there twice.
    """
    wanted = [lookup(name) or name for name in given]
    fits = set(wanted) <= set(names) and len(set(wanted)) == len(wanted)
    expect(fits, f"modalities out of {' '.join(names)}, each once,", "acn.given", " ".join(given))
    return [place for place, name in enumerate(names) if name in wanted]


def _with_background(logits: Tensor) -> Tensor:
    """Logits of the classes (B, K − 1, ...) with a zero for the background before them."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
