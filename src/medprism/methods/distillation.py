"""Training of a teacher with all scans, and of a student that learns from it to do with some of them (PMKL, MedMAP).

PMKL: Chen et al. 2022, https://doi.org/10.1109/TMI.2021.3119385. MedMAP, the alignment in the teacher: Liu et al.,
Eqs. 14 and 15, https://arxiv.org/abs/2408.09465. The published penalty on the kernels, 1e-5 · ‖W‖²/2, is no term here:
it is the optimiser's `weight_decay`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.data.batch import Batch
from medprism.errors import UserError, expect
from medprism.methods.alignment import Alignment
from medprism.methods.pmkl_losses import embedding_contrast, soft_label_loss, squared_dice, weighted_cross_entropy
from medprism.methods.segmentation import Segmentation
from medprism.methods.terms import weighted
from medprism.models.pmkl import Student, Teacher
from medprism.models.pmkl_blocks import Decoded

MARGIN = 1.0  # distance of unit vectors from which two sub-volumes are far enough apart


@dataclass(frozen=True)
class DistillationConfig:
    """What the student learns from the teacher, beside the label.

    Attributes:
        temperature: by which the logits of both are divided in `soft`.
        soft: weight of the teacher's softened answers; 0 switches it off.
        contrast: weight of the contrast between the embeddings of both; 0 switches it off.
    """

    temperature: float = 10.0
    soft: float = 0.5
    contrast: float = 0.5

    def __post_init__(self) -> None:
        expect(0 < self.temperature < math.inf, "a positive number", "distillation.temperature", self.temperature)
        for name in ("soft", "contrast"):
            expect(0 <= getattr(self, name) < math.inf, "0 or more", f"distillation.{name}", getattr(self, name))


class TeacherObjective(nn.Module):
    """Segmentation with all scans that a subject has, and MedMAP's alignment of their latents (Eq. 14).

    Args:
        task: names, classes and regions; its weights of the losses are not used.
        alignment: of the z_j behind the teacher's encoder T; None for PMKL as it is.
    """

    def __init__(self, task: Segmentation, alignment: Alignment | None = None) -> None:
        super().__init__()
        self.task, self.alignment = task, alignment
        self.metric, self.unit, self.many_passes = task.metric, task.unit, False

    def losses(
        self, network: Teacher, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the teacher.
            batch: B labelled sub-volumes with any non-empty subsets of modalities.
            epoch: of the training; nothing is drawn.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss`, `cross_entropy`, `dice` and, if there is one, `alignment`; detached if `backward`
            is given.
        """
        made: Decoded = network(batch.images, batch.present)
        terms, weights = _segmentation(made.logits, self.task.channels(batch)), {}
        if self.alignment is not None:
            assert made.z is not None
            terms["alignment"] = self.alignment(made.z, batch.present)
            weights["alignment"] = self.alignment.config.weight
        return weighted(terms, weights, backward)

    def scores(self, network: Teacher, batch: Batch) -> Tensor:
        """Dice of each region that a subject has, from all its scans over all its crops: (P,) from 0 to 1."""
        return self.task.scores(network, batch, [batch.present[0]])


class Distillation(nn.Module):
    """Segmentation with some scans, taught by a teacher that sees all that the subject has (Eq. 15).

    A student with fixed scans learns from the sub-volumes that have all of these; others sit out. Other students see
    each sub-volume through a subset of its scans, drawn anew.

    The teacher is frozen, and no part of this module: neither the optimiser, nor a checkpoint, nor `train()` finds it.
    A training is resumed by making this again with the same teacher.

    Args:
        config: weights and temperature.
        task: names, classes and regions; its weights of the losses are not used.
        student: what will be trained; its shape alone is looked at.
        teacher: trained.
        modalities: names of the teacher's modalities, in its order.
        classes: label value of each of the teacher's outputs.

    Raises:
        UserError: the teacher is another kind of network, or has other modalities or classes than the student.
    """

    def __init__(
        self,
        config: DistillationConfig,
        task: Segmentation,
        student: Student,
        teacher: nn.Module,
        modalities: Sequence[str],
        classes: Sequence[int],
    ) -> None:
        super().__init__()
        if not isinstance(teacher, Teacher):
            raise UserError(
                f"expected a teacher of PMKL, got a {type(teacher).__name__}; train one with "
                "`medprism finetune segment --config pmkl-teacher`"
            )
        if tuple(modalities) != student.names:
            raise UserError(
                f"expected a teacher for {' '.join(student.names)} in this order, as the student, got one for "
                f"{' '.join(modalities)}; train the teacher on the same cache"
            )
        if teacher.classes != student.classes or not _same_classes(task, classes):
            raise UserError(
                f"expected a teacher for the student's {student.classes} classes, got one for label values "
                f"{' '.join(map(str, classes))}; train the teacher on the same cache"
            )
        self.config, self.task = config, task
        self.metric, self.unit, self.many_passes = task.metric, task.unit, False
        self.teacher = Frozen(teacher)
        self.heads: nn.ModuleDict | None = None
        if config.contrast:
            widths = {"student": student.config.width, "teacher": teacher.config.width}
            self.heads = nn.ModuleDict({name: MetricHead(width) for name, width in widths.items()})

    def losses(
        self, network: Student, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the student.
            batch: B labelled sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss`, `cross_entropy`, `dice`, and `soft` and `contrast` if they are on; detached if
            `backward` is given.
        """
        given = self.given(network, batch, epoch)
        rows = given.any(dim=1)
        images, label = batch.images[rows], self.task.channels(batch)[rows]
        made: Decoded = network(images, given[rows])
        taught = self.teacher(images, batch.present[rows])
        terms = _segmentation(made.logits, label)
        if self.config.soft:
            terms["soft"] = soft_label_loss(made.logits, taught.logits, label, self.config.temperature)
        if self.heads is not None:
            ours, theirs = self.heads["student"](made.feature), self.heads["teacher"](taught.feature)
            terms["contrast"] = embedding_contrast(ours, theirs, MARGIN)
        return weighted(terms, {"soft": self.config.soft, "contrast": self.config.contrast}, backward)

    def given(self, network: Student, batch: Batch, epoch: int) -> Tensor:
        """What the student sees of each sub-volume: (B, M) bool, nothing of those that sit out."""
        if not bool(network.given.any()):
            return self.task.subsets(batch, epoch)
        return network.given & (batch.present | ~network.given).all(dim=1, keepdim=True)

    def scores(self, network: Student, batch: Batch) -> Tensor:
        """Dice of each region that a subject has (P,), from the fixed scans if it has them, or from each subset."""
        if not bool(network.given.any()):
            return self.task.scores(network, batch)
        if bool((network.given & ~batch.present[0]).any()):
            return torch.empty(0)
        return self.task.scores(network, batch, [network.given])


class Frozen:
    """A network that answers and is not trained; no module, so that what holds it does not hold its weights.

    Args:
        network: is put into evaluation mode, for good.
    """

    def __init__(self, network: Teacher) -> None:
        self.network = network.requires_grad_(False).eval()

    def __call__(self, images: Tensor, present: Tensor) -> Decoded:
        """Its answer on the device of the images, without gradient."""
        with torch.no_grad():
            made: Decoded = self.network.to(images.device)(images, present)
        return made


class MetricHead(nn.Module):
    """The decoder's last feature as a point on the unit sphere, in which teacher and student are compared.

    The release averages over windows of 40³ voxels of its crops of 80³, at each of their 41³ places: 35 million weights
    in the first linear layer, for crops of this size alone. Here the windows have half the crop's side too, whatever
    that is, but lie side by side: 2³ of them.

    Args:
        width: C, channels of the feature.
    """

    WINDOWS, HIDDEN, SIZE = 2, 32, 16

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width * self.WINDOWS**3, self.HIDDEN, bias=False)
        self.out = nn.Linear(self.HIDDEN, self.SIZE)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B, 16) of length 1, float32."""
        windows = F.adaptive_avg_pool3d(feature.float(), self.WINDOWS).flatten(1)
        return F.normalize(self.out(F.relu(self.hidden(windows))).float(), dim=1)


def _segmentation(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    return {"cross_entropy": weighted_cross_entropy(logits, label), "dice": squared_dice(logits, label)}


def _same_classes(task: Segmentation, classes: Sequence[int]) -> bool:
    """Whether these are the label values of the task's output channels."""
    assert isinstance(task.channel_of, Tensor)
    assert isinstance(task.weights, Tensor)
    places = task.channel_of.tolist()
    known = [places[value] if value < len(places) else None for value in classes]
    return len(classes) == len(task.weights) and known == list(range(len(classes)))
