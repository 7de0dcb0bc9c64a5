"""Teacher and student of PMKL: one that learns from all scans, one that is taught to do with some of them.

Chen et al. 2022, https://doi.org/10.1109/TMI.2021.3119385. MedMAP (https://arxiv.org/abs/2408.09465, Eq. 14) puts its
encoder T before the teacher; its student has none.
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
from medprism.models.pmkl_blocks import STRIDES, AttentionFusion, Decoded, Decoder, Encoder, channels_of, check_patch
from medprism.models.prism import by_scan, pairs


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher's shape.

    Attributes:
        width: channels at full resolution (16 in the release).
    """

    width: int = 16

    def __post_init__(self) -> None:
        expect(self.width >= 1, "1 or more", "teacher.width", self.width)


@dataclass(frozen=True)
class StudentConfig:
    """The student's shape and what it is given.

    Attributes:
        width: channels at full resolution (16 in the release).
        given: names of the modalities that it always gets: one student for each subset, as published. None: any
            subset, drawn at random in training: one student for all of them.
    """

    width: int = 16
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", tuple(self.given))  # a list when it comes from JSON
        expect(self.width >= 1, "1 or more", "student.width", self.width)
        expect(len(set(self.given)) == len(self.given), "each modality once", "student.given", " ".join(self.given))


class Teacher(nn.Module):
    """An encoder for each modality, fused by attention at each of four levels, and one decoder.

    Absent scans go through no encoder; their features are zero.

    Args:
        config: the shape.
        alignment: MedMAP's encoder T, whose z_j the encoders take; none in PMKL itself.
        modalities: M.
        classes: K, the background included.
        patch_size: sides of the training patches in voxels.

    Raises:
        UserError: a patch side is no multiple of 8, or below 16.
    """

    divisor = STRIDES[-1]

    def __init__(
        self,
        config: TeacherConfig,
        alignment: EncoderConfig,
        modalities: int,
        classes: int,
        patch_size: tuple[int, int, int],
    ) -> None:
        super().__init__()
        check_patch(patch_size)
        self.config, self.alignment = config, alignment
        self.modalities, self.classes, self.patch_size = modalities, classes, patch_size
        self.latent = ModalityEncoder(alignment, modalities)
        self.encoders = nn.ModuleList(Encoder(self.latent.channels, config.width) for _ in range(modalities))
        channels = channels_of(config.width)
        self.fusions = nn.ModuleList(AttentionFusion(c, modalities) for c in channels)
        self.decoder = Decoder(channels, classes)

    @property
    def architecture(self) -> dict[str, Any]:
        """What makes this network again; plain JSON."""
        return {"pmkl_teacher": asdict(self.config), **_shape(self)}

    def forward(self, images: Tensor, present: Tensor) -> Decoded:
        """Classes from the scans that are present.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read, but with an encoder T
                that `leaks`.
            present: (B, M) bool, at least one True a row.
        """
        pairs(present)  # refuses a row without scans
        z = self.latent(images, present)
        features = [fuse(level) for fuse, level in zip(self.fusions, self._encode(z, present), strict=True)]
        logits, feature = self.decoder(features)
        return Decoded(logits, feature, z)

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z) from images (B, M, X, Y, Z) where `present` (B, M)."""
        logits: Tensor = self(images, present).logits
        return logits

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled coarsest feature of each present scan's own encoder, before the fusion: (B, M, C), zero if absent."""
        return by_scan(pooled(self.scan_maps(images, present)), present)

    def scan_maps(self, images: Tensor, present: Tensor) -> Tensor:
        """Coarsest features of each of N present scans from its own encoder: (N, C, x, y, z)."""
        return self._encode(self.latent(images, present), present)[-1][present]

    def _encode(self, z: Tensor, present: Tensor) -> list[Tensor]:
        """Features (B, M, C_l, x, y, z) of latents (B, M, C, X, Y, Z), fine to coarse, zero where absent."""
        levels: list[list[Tensor]] = [[] for _ in self.fusions]
        for modality, encoder in enumerate(self.encoders):
            # Of no row, too, where nobody has this scan: all parameters have a gradient in every step.
            rows = present[:, modality].nonzero()[:, 0]
            for level, feature in zip(levels, encoder(z[rows, modality]), strict=True):
                level.append(feature.new_zeros((len(z), *feature.shape[1:])).index_copy(0, rows, feature))
        return [torch.stack(level, dim=1) for level in levels]


class Student(nn.Module):
    """One encoder with M input channels, and the teacher's decoder.

    The given scans are in their channels, and the mean of the given in those of the others: of a single one that is the
    published student, whose scan is repeated M times.

    Args:
        config: the shape, and what it is given.
        alignment: has to be `none`: what MedMAP aligns is the teacher. Here as all networks that segment have it.
        modalities: M.
        classes: K, the background included.
        patch_size: sides of the training patches in voxels.
        names: of the M modalities.

    Attributes:
        given: (M,) bool, what it is trained for; all False for any subset.

    Raises:
        UserError: `given` names none of the modalities, there is an encoder T, or a patch side is no multiple of 8 or
            below 16.
    """

    divisor = STRIDES[-1]
    given: Tensor

    def __init__(
        self,
        config: StudentConfig,
        alignment: EncoderConfig,
        modalities: int,
        classes: int,
        patch_size: tuple[int, int, int],
        names: Sequence[str],
    ) -> None:
        super().__init__()
        check_patch(patch_size)
        if alignment.encoder != "none":
            raise UserError(f"expected no encoder T in a student, got {alignment.encoder}; give it to the teacher")
        if len(names) != modalities:
            raise ValueError(f"expected the names of {modalities} modalities, got {tuple(names)}")
        self.config, self.alignment, self.names = config, alignment, tuple(names)
        self.modalities, self.classes, self.patch_size = modalities, classes, patch_size
        given = torch.zeros(modalities, dtype=torch.bool)
        for name in config.given:
            known = lookup(name) or name
            expect(known in self.names, f"some of {' '.join(names)}", "student.given", name)
            given[self.names.index(known)] = True
        self.register_buffer("given", given, persistent=False)
        self.encoder = Encoder(modalities, config.width)
        self.decoder = Decoder(self.encoder.channels, classes)

    @property
    def architecture(self) -> dict[str, Any]:
        """What makes this network again; plain JSON."""
        config = {"width": self.config.width, "given": list(self.config.given)}
        return {"pmkl_student": config, **_shape(self), "names": list(self.names)}

    def forward(self, images: Tensor, present: Tensor) -> Decoded:
        """Classes from the scans that are present.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, at least one True a row.

        Raises:
            UserError: something else is present in a row than what it is trained for.
        """
        other = (present != self.given).any(dim=1)
        if bool(self.given.any()) and bool(other.any()):
            got = present[other][0].tolist()
            raise UserError(
                f"expected {self._told(self.given.tolist())}, for which this student was trained, got "
                f"{self._told(got)}; give it these, or take the student of the other subset"
            )
        logits, feature = self.decoder(self.encoder(filled(images, present)))
        return Decoded(logits, feature)

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z) from images (B, M, X, Y, Z) where `present` (B, M).

        Raises:
            UserError: something else is present than what it is trained for.
        """
        logits: Tensor = self(images, present).logits
        return logits

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled coarsest feature of each present scan, seen alone: (B, M, C), zero where absent.

        Whatever its subset is: how far apart it holds the modalities can be asked of any student.
        """
        pairs(present)
        return by_scan(pooled(self.scan_maps(images, present)), present)

    def scan_maps(self, images: Tensor, present: Tensor) -> Tensor:
        """Coarsest features of each of N present scans, seen alone: (N, C, x, y, z)."""
        alone = images[present][:, None].expand(-1, self.modalities, *images.shape[2:])
        coarsest: Tensor = self.encoder(alone)[-1]
        return coarsest

    def _told(self, present: list[bool]) -> str:
        return " ".join(name for name, here in zip(self.names, present, strict=True) if here)


def filled(images: Tensor, present: Tensor) -> Tensor:
    """Scans (B, M, X, Y, Z), in place of those that are absent the mean of those that are present (B, M)."""
    pairs(present)  # refuses a row without scans
    here = present[:, :, None, None, None]
    mean = torch.where(here, images, 0.0).sum(dim=1, keepdim=True) / here.sum(dim=1, keepdim=True)
    return torch.where(here, images, mean)


def _shape(network: Teacher | Student) -> dict[str, Any]:
    return {
        "alignment": asdict(network.alignment),
        "modalities": network.modalities,
        "classes": network.classes,
        "patch_size": list(network.patch_size),
    }
