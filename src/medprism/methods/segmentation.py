"""Fine-tuning for segmentation with any subset of scans (PUIR, section 3.2 and Algorithm 2).

Each sub-volume in each step is seen through a non-empty subset of its scans, drawn anew, so that one network serves
all subsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.data.batch import Batch
from medprism.errors import expect
from medprism.methods.alignment import mean_anchor_losses
from medprism.methods.distributed import mean, summed
from medprism.methods.subsets import all_subsets, drawn_subsets
from medprism.methods.terms import weighted
from medprism.models.segmenter import Segmented, Segmenter

SMOOTH = 1e-5  # voxels: an absent class that is not found has Dice 1


class Segments(Protocol):
    """A network that segments."""

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z) from images (B, M, X, Y, Z) where `present` (B, M)."""
        ...


@dataclass(frozen=True)
class SegmentationConfig:
    """The objective.

    Attributes:
        dice: weight of the soft Dice loss over the classes, background left out; 0 switches it off, as each weight.
        cross_entropy: weight of the cross-entropy.
        invariance: weight of the alignment of the scans' representations to their mean (Eq. 3), of fused models.
        balance: weigh the cross-entropy's classes by one over the square root of their share of voxels in training.
        full: share of the sub-volumes that are seen through all their scans; the others through a subset, each
            non-empty one as likely as another.
    """

    dice: float = 1.0
    cross_entropy: float = 1.0
    invariance: float = 0.1
    balance: bool = True
    full: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dice", "cross_entropy", "invariance"):
            expect(0 <= getattr(self, name) < math.inf, "0 or more", f"segmentation.{name}", getattr(self, name))
        expect(self.dice + self.cross_entropy > 0, "a positive weight", "segmentation.dice or cross_entropy", "none")
        expect(0 <= self.full <= 1, "a share from 0 to 1", "segmentation.full", self.full)


class Segmentation(nn.Module):
    """The objective. It has no parameters of its own.

    Args:
        config: weights and choices.
        classes: label value of each output channel.
        voxels: of each class in the training labels.
        regions: name -> label values, for validation.
        modalities: names in the order of the batch; they key the random draws.
        seed: of the run.
    """

    def __init__(
        self,
        config: SegmentationConfig,
        classes: Sequence[int],
        voxels: Sequence[int],
        regions: Mapping[str, Sequence[int]],
        modalities: tuple[str, ...],
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.modalities, self.seed = config, modalities, seed
        self.metric, self.unit, self.many_passes = "dice", "", False
        self.regions = {name: [list(classes).index(v) for v in values] for name, values in regions.items()}
        table = torch.zeros(max(classes) + 1, dtype=torch.int64)
        table[list(classes)] = torch.arange(len(classes))
        self.register_buffer("channel_of", table, persistent=False)
        weights = torch.tensor(voxels, dtype=torch.float32).clamp(min=1) ** -0.5
        weights = weights / weights.mean() if config.balance else torch.ones(len(classes))
        self.register_buffer("weights", weights, persistent=False)

    def losses(
        self, network: Segmenter, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch, each sub-volume seen through a subset of its scans.

        Args:
            network: the network.
            batch: B labelled sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss` and each term that is on, of the samples of all processes together; detached if
            `backward` is given.
        """
        made: Segmented = network(batch.images, self.subsets(batch, epoch))
        terms = self.supervised(made.logits, self.channels(batch))
        if self.config.invariance and made.x_h is not None:
            terms["invariance"] = mean(mean_anchor_losses(made.x_h, made.owner))
        return weighted(terms, self.shares, backward)

    @property
    def shares(self) -> dict[str, float]:
        """The weight of each term."""
        return {name: getattr(self.config, name) for name in ("dice", "cross_entropy", "invariance")}

    def supervised(self, levels: Sequence[Tensor], label: Tensor) -> dict[str, Tensor]:
        """The terms over all levels of a decoder, each of half the weight of the finer one, against one label.

        Args:
            levels: (B, K, X, Y, Z) logits, then coarser ones.
            label: (B, X, Y, Z) channels.
        """
        shares = torch.tensor([0.5**level for level in range(len(levels))])
        terms: dict[str, Tensor] = {}
        for logits, share in zip(levels, (shares / shares.sum()).tolist(), strict=True):
            for name, value in self.terms(logits.float(), _coarser(label, logits)).items():
                terms[name] = terms.get(name, value.new_zeros(())) + share * value
        return terms

    def terms(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Dice loss and cross-entropy of logits (B, K, X, Y, Z) against channels (B, X, Y, Z)."""
        terms = {}
        if self.config.dice:
            terms["dice"] = soft_dice_loss(logits, label)
        if self.config.cross_entropy:
            assert isinstance(self.weights, Tensor)
            charged = F.cross_entropy(logits, label, self.weights, reduction="sum")
            total, weight = summed(torch.stack([charged, self.weights[label].sum()]))
            terms["cross_entropy"] = total / weight
        return terms

    def channels(self, batch: Batch) -> Tensor:
        """Output channel of each voxel's label: (B, X, Y, Z) int64."""
        assert batch.label is not None  # the loader has refused subjects without one
        assert isinstance(self.channel_of, Tensor)
        return self.channel_of[batch.label]

    def subsets(self, batch: Batch, epoch: int) -> Tensor:
        """A non-empty subset of what is present: (B, M) bool."""
        return drawn_subsets(batch, epoch, self.modalities, self.seed, self.config.full)

    def scores(self, network: Segments, batch: Batch, subsets: Sequence[Tensor] | None = None) -> Tensor:
        """Dice of each subset of a subject's scans and each region over all its crops, where the region is not empty.

        Args:
            network: the network.
            batch: the crops of one subject.
            subsets: (M,) bool each, of what is present; all of them if not given.

        Returns:
            (P,) from 0 to 1.
        """
        if batch.label is None:
            return torch.empty(0)
        label, found = self.channels(batch), []
        for present in all_subsets(batch.present[0]) if subsets is None else subsets:
            guess = network.segment(batch.images, present.expand_as(batch.present)).argmax(dim=1)
            for channels in self.regions.values():
                inside = torch.tensor(channels, device=label.device)
                a, b = torch.isin(guess, inside), torch.isin(label, inside)
                if bool(b.any()):
                    found.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        return torch.stack(found) if found else torch.empty(0)


def soft_dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """1 − Dice of the softmax, over all voxels of the batch (of all processes), mean over classes but the background.

    Args:
        logits: (B, K, X, Y, Z).
        label: (B, X, Y, Z) channels 0 to K − 1.
    """
    guess, truth = logits.softmax(dim=1)[:, 1:], F.one_hot(label, logits.shape[1]).movedim(-1, 1)[:, 1:]
    voxels = (0, 2, 3, 4)
    both, either = summed(torch.stack([(guess * truth).sum(voxels), guess.sum(voxels) + truth.sum(voxels)]))
    return 1 - torch.mean((2 * both + SMOOTH) / (either + SMOOTH))


def _coarser(label: Tensor, logits: Tensor) -> Tensor:
    """Labels (B, X, Y, Z) at the places of coarser logits: the voxel in each block's middle."""
    stride = label.shape[1] // logits.shape[2]
    start = stride // 2
    return label[:, start::stride, start::stride, start::stride] if stride > 1 else label
