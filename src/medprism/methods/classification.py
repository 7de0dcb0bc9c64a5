"""Fine-tuning for classification with any subset of scans: features fused over the given scans and pooled, then an MLP.

Each sub-volume in each step is seen through a non-empty subset of its scans, drawn anew, so that one network serves
all subsets, and has the class of its subject. Validation and inference pool over the sub-volumes of a subject.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.data.batch import Batch
from medprism.errors import expect
from medprism.methods.alignment import mean_anchor_losses
from medprism.methods.distributed import mean, summed
from medprism.methods.subsets import all_subsets, drawn_subsets
from medprism.models.classifier import Classifier, Represented


@dataclass(frozen=True)
class ClassificationConfig:
    """The objective: cross-entropy of weight 1, and what is added to it.

    Attributes:
        invariance: weight of the alignment of the scans' representations to their mean (Eq. 3); 0 switches it off.
        balance: weigh the classes by one over their number of subjects in training.
        full: share of the sub-volumes that are seen through all their scans; the others through a subset, each
            non-empty one as likely as another.
    """

    invariance: float = 0.1
    balance: bool = True
    full: float = 0.0

    def __post_init__(self) -> None:
        expect(0 <= self.invariance < math.inf, "0 or more", "classification.invariance", self.invariance)
        expect(0 <= self.full <= 1, "a share from 0 to 1", "classification.full", self.full)


class Classification(nn.Module):
    """The objective. It has no parameters of its own.

    Args:
        config: weights and choices.
        classes: value of each output in the cohort.
        training: subjects of each class in training.
        validation: likewise in validation.
        modalities: names in the order of the batch; they key the random draws.
        seed: of the run.
    """

    def __init__(
        self,
        config: ClassificationConfig,
        classes: Sequence[int],
        training: Sequence[int],
        validation: Sequence[int],
        modalities: tuple[str, ...],
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.classes, self.modalities, self.seed = config, list(classes), modalities, seed
        self.metric, self.unit, self.many_passes = "balanced_accuracy", "", False
        weights = 1 / torch.tensor(training, dtype=torch.float32)
        weights = weights / weights.mean() if config.balance else torch.ones(len(classes))
        self.register_buffer("weights", weights, persistent=False)
        there = [count for count in validation if count]
        # The mean over subjects of (right or wrong) times this is the mean over classes of the share that is right.
        self.share = [sum(there) / (len(there) * count) if count else 0.0 for count in validation]

    def losses(
        self, network: Classifier, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch, each sub-volume seen through a subset of its scans.

        Args:
            network: the network.
            batch: B sub-volumes of subjects with a class, with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss` and each term that is on, of the samples of all processes together; detached if
            `backward` is given.
        """
        given = drawn_subsets(batch, epoch, self.modalities, self.seed, self.config.full)
        logits, scans = network(batch.images, given)
        terms = {"cross_entropy": self.cross_entropy(logits, self.outputs(batch))}
        loss = terms["cross_entropy"]
        if self.config.invariance:
            terms["invariance"] = mean(mean_anchor_losses(scans.x_h, scans.owner))
            loss = loss + self.config.invariance * terms["invariance"]
        if backward is not None:
            backward(loss)
            terms, loss = {name: value.detach() for name, value in terms.items()}, loss.detach()
        return {"loss": loss, **terms}

    def cross_entropy(self, logits: Tensor, outputs: Tensor) -> Tensor:
        """Of logits (B, K) against outputs (B,), the classes weighted."""
        assert isinstance(self.weights, Tensor)
        charged = F.cross_entropy(logits.float(), outputs, self.weights, reduction="sum")
        charge, weight = summed(torch.stack([charged, self.weights[outputs].sum()])).unbind()
        return charge / weight

    def outputs(self, batch: Batch) -> Tensor:
        """Output of the network that stands for the class of each sub-volume's subject: (B,) int64."""
        assert batch.class_label is not None  # the loader has refused subjects without one
        places = [self.classes.index(value) for value in batch.class_label.tolist()]
        return torch.tensor(places, device=batch.images.device)

    def scores(self, network: Classifier, batch: Batch) -> Tensor:
        """How often a subject's class is found, over all subsets of its scans, its crops pooled.

        Args:
            network: the network.
            batch: the crops of one subject.

        Returns:
            (1,), weighted such that the mean over the validation subjects is the balanced accuracy; (0,) for a subject
            without a class.
        """
        if batch.class_label is None:
            return torch.empty(0)
        scans = network.represent(batch.images, batch.present)  # each scan is encoded once for all subsets
        return self.found(network, batch, scans.of)

    def found(self, network: Classifier, batch: Batch, seen: Callable[[Tensor], Represented]) -> Tensor:
        """The scores of a subject with a class, see `scores`.

        Args:
            network: the network.
            batch: the crops of one subject.
            seen: subset of its scans (M,) -> what the network is to see then, in all crops.
        """
        wanted = int(self.outputs(batch)[0])
        right = []
        for subset in all_subsets(batch.present[0]):
            pooled = network.fused(seen(subset), len(batch)).mean(dim=0, keepdim=True)
            right.append(float(int(network.head(pooled).argmax()) == wanted))
        return torch.tensor([self.share[wanted] * sum(right) / len(right)], device=batch.images.device)
