"""BrainMVP: pre-training on scans of which parts are hidden behind another scan, or behind a learned template.

Rui et al. 2024, https://arxiv.org/abs/2410.10604, section 3. One encoder sees one scan at a time, in two copies. Copy f
is hidden behind another scan of the same subject (cross-modal reconstruction), copy g behind the template of its
modality, which learns by that (modality-wise data distillation); a linear decoder restores the scan from either. Later
the features of the two copies are contrasted with those of other sub-volumes (modality-aware contrastive learning).
Where paper and release differ, see docs/brainmvp.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from medprism.data.batch import Batch
from medprism.errors import UserError, expect
from medprism.methods.contrast import ContrastConfig, ModalityContrast
from medprism.methods.copies import Copier
from medprism.methods.distributed import world_size
from medprism.methods.masking import Masking
from medprism.methods.scores import psnr
from medprism.methods.terms import weighted
from medprism.models.linear_decoder import LinearDecoder
from medprism.models.prism import Prism
from medprism.models.templates import Templates, TemplatesConfig

TERMS = ("reconstruction", "distillation", "contrast")


@dataclass(frozen=True)
class BrainMVPConfig:
    """The objective.

    Attributes:
        reconstruction: weight of restoring a scan of which parts are hidden behind another one (Eq. 1); 0 switches it
            off, as with every weight.
        distillation: weight of restoring a scan of which parts are hidden behind its template (Eq. 3; 10 in the
            release).
        contrast: weight of InfoNCE between the two copies' features (Eq. 5).
        contrast_from: share of the training after which they are contrasted, when the templates are formed.
        cross_modal_from: share of the training up to which a template hides the parts of both copies, so that
            templates form sooner (0 in the paper, 0.2 in the release).
        each: `all` scans of a sub-volume in each step (Eq. 6), or `one` of them drawn at random (the release).
        mask: what is hidden, drawn for each copy anew.
        infonce: how features are contrasted.
        templates: where the templates are, and as what they begin.
        template_rate: by what their learning rate is larger than the network's: a voxel of a template is seen by few
            crops, a weight of the network by all.
    """

    reconstruction: float = 1.0
    distillation: float = 1.0
    contrast: float = 1.0
    contrast_from: float = 2 / 3
    cross_modal_from: float = 0.0
    each: Literal["all", "one"] = "all"
    mask: Masking = field(default_factory=lambda: Masking("cubes"))
    infonce: ContrastConfig = field(default_factory=ContrastConfig)
    templates: TemplatesConfig = field(default_factory=TemplatesConfig)
    template_rate: float = 10.0

    def __post_init__(self) -> None:
        for name in TERMS:
            expect(0 <= getattr(self, name) < math.inf, "0 or more", f"brainmvp.{name}", getattr(self, name))
        for name in ("contrast_from", "cross_modal_from"):
            expect(0 <= getattr(self, name) <= 1, "a share from 0 to 1", f"brainmvp.{name}", getattr(self, name))
        restoring = "one of brainmvp.reconstruction and brainmvp.distillation"
        expect(bool(self.reconstruction or self.distillation), "a positive weight", restoring, "none")
        expect(0 < self.template_rate < math.inf, "a positive number", "brainmvp.template_rate", self.template_rate)


class BrainMVP(nn.Module):
    """The objective with its templates, its decoder and, if wanted, a projection, which pre-training alone needs.

    Args:
        config: weights and choices.
        network: an encoder (`outputs=0`, no prior), whose bottleneck is decoded here.
        templates: of all modalities; trained without weight decay and clipping.
        modalities: names in the order of the batch; they key the random draws, so their order does not matter.
        epochs: of the whole training, which the shares are of.
        seed: of the run.

    Raises:
        UserError: a modality has no template.
    """

    def __init__(
        self,
        config: BrainMVPConfig,
        network: Prism,
        templates: Templates,
        modalities: tuple[str, ...],
        epochs: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.metric, self.unit, self.many_passes, self.scores_trained = "psnr", "dB", False, True
        templates.index(modalities)  # each must have one
        self.config, self.templates = config, templates
        self.copier = Copier(config.mask, modalities, seed)
        self.contrast_epoch = round(config.contrast_from * epochs)
        self.cross_modal_epoch = round(config.cross_modal_from * epochs)
        backbone = network.backbone
        self.decoder = LinearDecoder(backbone.channels, backbone.strides, 1)
        self.contrast = ModalityContrast(config.infonce, backbone.channels[-1]) if config.contrast else None
        self.unregularised, self.unregularised_rate = (templates.volumes,), config.template_rate

    def check_batch(self, size: int) -> None:
        """Refuse a batch in which there is nothing to contrast.

        Raises:
            UserError: one sub-volume in all processes together.
        """
        if self.contrast is not None and size * world_size() < 2:
            raise UserError(
                "expected a batch of at least 2 sub-volumes to contrast, got 1; give --patches.batch 2 or switch the "
                "contrast off by --brainmvp.contrast 0"
            )

    def losses(
        self, network: Prism, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the encoder.
            batch: B sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws; the parts of the objective begin at theirs.
            backward: called once, on the loss.

        Returns:
            The weighted sum `loss` and each term that is on, detached unless `backward` is None, and
            `contrast_accuracy`: the share of copies that are nearer to their own other copy than to any negative. The
            first two are means over sub-volumes of the mean over their scans (Eq. 6), the contrast over all pairs of
            all processes; batches of all processes are of one size, so that the mean over processes is that of all.
        """
        config = self.config
        contrasting = self.contrast is not None and epoch >= self.contrast_epoch
        seen = batch.present if config.each == "all" else self.copier.one(batch, epoch)
        copies = self.copier(batch, seen, self.templates, epoch, crossing=epoch >= self.cross_modal_epoch)
        parts: dict[str, Tensor] = {}
        if config.reconstruction or contrasting:
            parts["reconstruction"] = copies.f
        if config.distillation or contrasting:
            parts["distillation"] = copies.g
        z = network.bottleneck(torch.cat(list(parts.values())), copies.source.repeat(len(parts)))
        share = 1 / seen.sum(dim=1)[copies.owner] / len(batch)
        terms = {}
        maps = dict(zip(parts, z.chunk(len(parts)), strict=True))
        for name, one in maps.items():
            if getattr(config, name):
                error = (self.decoder(one).float() - copies.clean) ** 2
                terms[name] = (error.mean(dim=(1, 2, 3, 4)) * share).sum()
        accuracy = {}
        if contrasting:
            assert self.contrast is not None
            sample = batch.index.to(z.device)[copies.owner]
            terms["contrast"], accuracy["contrast_accuracy"] = self.contrast(
                maps["reconstruction"], maps["distillation"], sample, copies.source
            )
        weights = {name: getattr(config, name) for name in TERMS}
        return {**weighted(terms, weights, backward), **accuracy}

    @torch.no_grad()
    def scores(self, network: Prism, batch: Batch) -> Tensor:
        """PSNR of what is hidden, for each present scan of each subject.

        Restored from both copies, f hidden behind another scan where there is one; masks are the same in every epoch.
        On normalised intensities, over hidden voxels in the scan's own foreground. All crops of a subject count as one
        volume, and the data range is the scan's over them.

        Returns:
            (P,) dB.
        """
        copies = self.copier(batch, batch.present, self.templates, "validation")
        z = network.bottleneck(torch.cat([copies.f, copies.g]), copies.source.repeat(2))
        images = self.decoder(z).float().chunk(2)
        errors: dict[tuple[str, int], list[Tensor]] = {}
        targets: dict[tuple[str, int], list[Tensor]] = {}
        for row, (b, m) in enumerate(zip(copies.owner.tolist(), copies.source.tolist(), strict=True)):
            inside, name = batch.foreground[b, m], (batch.subject[b], m)
            for image, hidden in zip(images, (copies.hidden_f, copies.hidden_g), strict=True):
                wanted = hidden[row, 0] & inside
                errors.setdefault(name, []).append((image[row, 0] - copies.clean[row, 0])[wanted] ** 2)
            targets.setdefault(name, []).append(copies.clean[row, 0][inside])
        return psnr(errors, targets)
