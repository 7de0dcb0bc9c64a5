"""Fine-tuning with templates for absent scans (BrainMVP, appendix A): segmentation and classification.

Rui et al. 2024, https://arxiv.org/abs/2410.10604. Each sub-volume is seen twice, in copies of which templates stand for
other scans (`TemplateCopies`). Both are to give its label, and the encoder's bottlenecks of both are to agree; the
authors' release compares logits instead. The paper adds up the losses of both copies; here it is their mean, so that
learning rates and weights mean what they mean without templates. Invariance is left out: a template is nobody's scan,
so there is nothing to align it to.

In validation, as in use, each subset of a subject's scans is scored with the templates of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from medprism.data.batch import Batch
from medprism.methods.classification import Classification
from medprism.methods.distributed import mean
from medprism.methods.segmentation import Segmentation, Segments
from medprism.methods.template_copies import COPIES, TemplateCopies
from medprism.methods.terms import weighted
from medprism.models.classifier import Classifier
from medprism.models.prism import mean_by_owner
from medprism.models.segmenter import Segmented, Segmenter


class TemplateSegmentation(nn.Module):
    """Segmentation of both copies. It has no parameters of its own.

    Args:
        task: gives labels, losses and scores.
        copies: makes the copies.
        consistency: weight of the difference between the copies' bottlenecks; 0 switches it off.
    """

    many_passes = False

    def __init__(self, task: Segmentation, copies: TemplateCopies, consistency: float) -> None:
        super().__init__()
        self.task, self.copies, self.consistency = task, copies, consistency
        self.metric, self.unit = task.metric, task.unit

    def losses(
        self, network: Segmenter, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the network.
            batch: B labelled sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss`; each term of the task that is on, the mean of both copies; `consistency`. Detached
            if `backward` is given.
        """
        images = self.copies(batch, epoch)
        made: Segmented = network(images, everything(images))
        label = self.task.channels(batch)
        copies = zip(*(level.chunk(COPIES) for level in made.logits), strict=True)
        terms = mean_terms([self.task.supervised(levels, label) for levels in copies])
        if self.consistency:
            terms["consistency"] = disagreement(made.z, made.owner, len(images))
        return weighted(terms, {**self.task.shares, "consistency": self.consistency}, backward)

    def scores(self, network: Segmenter, batch: Batch) -> Tensor:
        """Dice of each subset and region (P,), see `Segmentation.scores`; absent scans are filled by templates."""
        return self.task.scores(Completed(network, self.copies.templates(batch)), batch)


class TemplateClassification(nn.Module):
    """Classification of both copies. It has no parameters of its own; arguments as for `TemplateSegmentation`."""

    many_passes = False

    def __init__(self, task: Classification, copies: TemplateCopies, consistency: float) -> None:
        super().__init__()
        self.task, self.copies, self.consistency = task, copies, consistency
        self.metric, self.unit = task.metric, task.unit

    def losses(
        self, network: Classifier, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch of sub-volumes of subjects with a class; all else as `TemplateSegmentation`."""
        images = self.copies(batch, epoch)
        logits, scans = network(images, everything(images))
        outputs = self.task.outputs(batch)
        terms = mean_terms([{"cross_entropy": self.task.cross_entropy(one, outputs)} for one in logits.chunk(COPIES)])
        if self.consistency:
            terms["consistency"] = disagreement(scans.z, scans.owner, len(images))
        return weighted(terms, {"consistency": self.consistency}, backward)

    def scores(self, network: Classifier, batch: Batch) -> Tensor:
        """How often a subject's class is found, see `Classification.scores`; absent scans are filled by templates."""
        if batch.class_label is None:
            return torch.empty(0)
        templates = self.copies.templates(batch)
        stands = network.represent(templates, everything(templates))  # each is encoded once for all subsets, as scans
        scans = network.represent(batch.images, batch.present)
        return self.task.found(network, batch, lambda subset: scans.of(subset).joined(stands.of(~subset)))


class Completed:
    """A network that segments, and that finds templates where scans are not given.

    Args:
        network: takes all scans.
        templates: (B, M, X, Y, Z) at the places of the crops.
    """

    def __init__(self, network: Segments, templates: Tensor) -> None:
        self.network, self.templates = network, templates

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z) from images (B, M, X, Y, Z) where `present` (B, M), templates elsewhere."""
        completed = torch.where(present[:, :, None, None, None], images, self.templates)
        return self.network.segment(completed, everything(completed))


def everything(images: Tensor) -> Tensor:
    """That all channels of images (B, M, X, Y, Z) are present: (B, M) bool."""
    return torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)


def mean_terms(copies: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each term over the copies."""
    return {name: torch.stack([terms[name] for terms in copies]).mean() for name in copies[0]}


def disagreement(z: Tensor, owner: Tensor, rows: int) -> Tensor:
    """Mean squared difference between the bottlenecks of first and second copies.

    Args:
        z: (N, C, x, y, z) bottleneck of each scan, or of each row where all scans enter at once.
        owner: (N,) row of each scan.
        rows: 2 B, first copies, then second ones.

    Returns:
        The mean over sub-volumes of all processes, channels and voxels; of several bottlenecks of a row their mean
        counts.
    """
    first, second = (z if len(z) == rows else mean_by_owner(z, owner, rows)).float().chunk(COPIES)
    return mean((first - second).square().flatten(1).mean(dim=1))
