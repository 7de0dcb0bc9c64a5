"""The losses of PMKL, of the teacher as of the student, and what the student learns from the teacher.

Chen et al. 2022, https://doi.org/10.1109/TMI.2021.3119385; constants as in the authors' release. All are taken over the
samples of all processes, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medprism.methods.distributed import gather_rows, summed, world_size

LEAST = 0.005  # probability below which a voxel's cross-entropy rises no more, nor has a gradient
EPSILON = 1e-7


def weighted_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy in which a class weighs one less its share of the batch's voxels; mean over voxels.

    Args:
        logits: (B, K, X, Y, Z); B may be 0.
        label: (B, X, Y, Z) channels 0 to K − 1.
    """
    classes = logits.shape[1]
    voxels = summed(torch.bincount(label.flatten(), minlength=classes).float())
    count = voxels.sum().clamp(min=1)
    probability = logits.float().softmax(dim=1).gather(1, label[:, None])[:, 0]
    charged = (1 - voxels / count)[label] * -torch.log(probability.clamp(min=LEAST))
    return summed(charged.sum()) / count


def squared_dice(logits: Tensor, label: Tensor) -> Tensor:
    """1 − 2 Σ p y / (Σ p² + Σ y) over all voxels of the batch; mean over all classes, background included.

    A class that is nowhere in the batch costs 1, whatever is found, as in the release.

    Args:
        logits: (B, K, X, Y, Z); B may be 0.
        label: (B, X, Y, Z) channels 0 to K − 1.
    """
    guess, truth = logits.float().softmax(dim=1), F.one_hot(label, logits.shape[1]).movedim(-1, 1)
    voxels = (0, 2, 3, 4)
    both, either = summed(torch.stack([(guess * truth).sum(voxels), (guess**2 + truth).sum(voxels)]))
    return 1 - torch.mean(2 * both / (either + EPSILON))


def soft_label_loss(student: Tensor, teacher: Tensor, label: Tensor, temperature: float) -> Tensor:
    """The teacher's softened answer as the student's label, where the teacher is right and the student is worse.

    A voxel's weight, through which no gradient flows, is max(0, CE(student) − CE(teacher)) where the teacher's first
    class is the true one, else 0. The softened cross-entropies' weighted mean is not multiplied by T².

    Args:
        student: logits (B, K, X, Y, Z); B may be 0.
        teacher: logits (B, K, X, Y, Z), without gradient.
        label: (B, X, Y, Z) channels 0 to K − 1.
        temperature: T by which both logits are divided.

    Returns:
        The weighted mean; zero where no voxel has a weight.
    """
    student, teacher = student.float(), teacher.detach().float()
    with torch.no_grad():
        gap = F.cross_entropy(student, label, reduction="none") - F.cross_entropy(teacher, label, reduction="none")
        weight = gap.clamp(min=0) * (teacher.argmax(dim=1) == label)
    soft = -((teacher / temperature).softmax(dim=1) * (student / temperature).log_softmax(dim=1)).sum(dim=1)
    total, weights = summed(torch.stack([(weight * soft).sum(), weight.sum()])).unbind()
    return total / weights.clamp(min=EPSILON)


def embedding_contrast(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Contrastive loss (Hadsell et al. 2006) of all pairs of a student's and a teacher's embedding.

    The squared distance if both are of the same sub-volume, otherwise max(0, margin − distance)²; the mean over all B²
    pairs, B of them of the first kind.

    Args:
        student: (B, D), its rows of unit length; B may be 0, and another number in each process.
        teacher: (B, D), of the same sub-volumes.
        margin: distance from which other sub-volumes are far enough apart.
    """
    ours, theirs = _of_all(student.float()), _of_all(teacher.float())
    squared = ((ours[:, None] - theirs[None]) ** 2).sum(dim=2)
    same = torch.eye(len(ours), dtype=torch.bool, device=squared.device)
    distance = squared.clamp(min=EPSILON**2).sqrt()  # the root has no gradient at zero
    value = torch.where(same, squared, (margin - distance).clamp(min=0) ** 2).sum() / max(squared.numel(), 1)
    # Each process has the gradient of its own rows alone, and their mean is taken, see `summed`.
    return value + (world_size() - 1) * (value - value.detach())


def _of_all(rows: Tensor) -> Tensor:
    """Rows of all processes in order of rank; those of this one with their gradient."""
    everywhere, start = gather_rows(rows)
    return torch.cat([everywhere[:start], rows, everywhere[start + len(rows) :]])
