"""ACN's objective: a full and an incomplete path learn from labels and from each other, at once.

Wang et al., MICCAI 2021, https://arxiv.org/abs/2106.14591; the numbers that the paper leaves open are those of the
authors' release. With MedMAP's alignment of what enters the full path (Liu et al., Eq. 17,
https://arxiv.org/abs/2408.09465).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.data.batch import Batch
from medprism.data.randomness import torch_rng
from medprism.errors import expect
from medprism.methods.adversary import Adversary, entropy_discriminator, entropy_map, feature_discriminator
from medprism.methods.alignment import Alignment
from medprism.methods.distributed import summed
from medprism.methods.information import Information
from medprism.methods.segmentation import Segmentation
from medprism.methods.terms import weighted
from medprism.models.acn import ACN, Paths

SMOOTH = 1e-7  # voxels
DISCRIMINATOR_RATE = 0.1  # of the network's rate: at the same one they win within 100 steps, and teach nothing


@dataclass(frozen=True)
class ACNLossConfig:
    """The objective. A weight of 0 switches a term off; both paths need theirs.

    Attributes:
        full: weight of the Dice loss of the full path.
        incomplete: of the incomplete path.
        consistency: of the distance between what both say, once it has risen.
        ramp: epochs in which it rises (20 of the 300 of the release).
        information: of the mutual information of both bottlenecks.
        mutual_information: `correct`: the incomplete path's bottleneck is asked for the full one's. `as_released`: for
            itself, with gradients through both sides, as the release's variables overwrite each other; for comparison.
            `none`.
        entropy_adversarial: of the entropy map of the incomplete path, that it pass for one of the full path.
        feature_adversarial: the same of the bottleneck.
        dropout: share of the bottlenecks' channels that the decoders do not see.
    """

    full: float = 0.2
    incomplete: float = 0.8
    consistency: float = 10.0
    ramp: int = 20
    information: float = 0.5
    mutual_information: Literal["correct", "as_released", "none"] = "correct"
    entropy_adversarial: float = 0.001
    feature_adversarial: float = 0.0002
    dropout: float = 0.2

    def __post_init__(self) -> None:
        weights = ("full", "incomplete", "consistency", "information", "entropy_adversarial", "feature_adversarial")
        for name in weights:
            expect(0 <= getattr(self, name) < math.inf, "0 or more", f"acn_loss.{name}", getattr(self, name))
        for name in ("full", "incomplete"):
            expect(getattr(self, name) > 0, "more than 0", f"acn_loss.{name}", getattr(self, name))
        expect(self.ramp >= 0, "0 or more", "acn_loss.ramp", self.ramp)
        expect(0 <= self.dropout < 1, "0 to below 1", "acn_loss.dropout", self.dropout)

    def consistency_at(self, epoch: int) -> float:
        """The weight of the consistency in an epoch: c exp(−5 (1 − e/ramp)²) up to c, where it stays."""
        if epoch >= self.ramp:
            return self.consistency
        return self.consistency * math.exp(-5 * (1 - epoch / self.ramp) ** 2)


class ACNLoss(nn.Module):
    """The objective. Regressor and discriminators are its own; they train with the network and are not shipped.

    A subject that lacks scans takes part like any other: its full path sees what there is, with zeros for the rest,
    and its incomplete path a part of that. Where the network serves one fixed subset, a subject that lacks some of it
    trains the full path alone, and does not count in what concerns the incomplete path.

    Args:
        config: weights and choices.
        task: labels, random subsets and validation scores.
        alignment: of the scans as they enter the full path, or None.
        network: what is to be trained; its sizes are read and no more.
    """

    def __init__(self, config: ACNLossConfig, task: Segmentation, alignment: Alignment | None, network: ACN) -> None:
        super().__init__()
        self.config, self.task, self.alignment = config, task, alignment
        self.metric, self.unit, self.many_passes = task.metric, task.unit, False
        self.unregularised_rate = DISCRIMINATOR_RATE
        channels, width = network.channels, network.config.width
        wanted = config.mutual_information != "none" and config.information > 0
        self.information = Information(channels) if wanted else None
        self.entropy = Adversary(entropy_discriminator(network.classes, width)) if config.entropy_adversarial else None
        self.feature = Adversary(feature_discriminator(channels)) if config.feature_adversarial else None

    @property
    def unregularised(self) -> Iterator[nn.Parameter]:
        """Parameters of the discriminators: one that tells both paths apart has gradients many times the network's.

        Clipped together with the network's, they would leave nothing of those.
        """
        for adversary in (self.entropy, self.feature):
            if adversary is not None:
                yield from adversary.parameters()

    def losses(
        self, network: ACN, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the network.
            batch: B labelled sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws; sets the weight of the consistency.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss` and each term that is on, of the samples of all processes together; detached if
            `backward` is given. The discriminators' own losses are part of the sum, with weight 1: they share no
            parameter with the rest.
        """
        fixed = bool(network.config.given)
        given = network.only(batch.present) if fixed else self.task.subsets(batch, epoch)
        served = network.serves(batch.present)
        paths: Paths = network(batch.images, batch.present, given, self.kept(batch, epoch, network.channels))
        terms, weights = self.terms(paths, self.task.channels(batch), served), self.weights(epoch)
        if self.alignment is not None:
            terms["alignment"] = self.alignment(paths.encoded, batch.present)
            weights["alignment"] = self.alignment.config.weight
        return weighted(terms, weights, backward)

    def weights(self, epoch: int) -> dict[str, float]:
        """The weight of each term in an epoch."""
        config = self.config
        return {
            "dice_full": config.full,
            "dice_incomplete": config.incomplete,
            "consistency": config.consistency_at(epoch),
            "mutual_information": config.information,
            "entropy_adversarial": config.entropy_adversarial,
            "feature_adversarial": config.feature_adversarial,
            "entropy_discriminator": 1.0,
            "feature_discriminator": 1.0,
        }

    def terms(self, paths: Paths, label: Tensor, served: Tensor) -> dict[str, Tensor]:
        """All terms but the alignment, unweighted.

        Args:
            paths: what the network made of the batch.
            label: (B, X, Y, Z) channels.
            served: (B,) bool, the sub-volumes whose incomplete path counts.
        """
        full, incomplete = paths.full.float(), paths.incomplete.float()
        everyone = torch.ones_like(served)
        terms = {
            "dice_full": sigmoid_dice_loss(full, label, everyone),
            "dice_incomplete": sigmoid_dice_loss(incomplete, label, served),
        }
        if self.config.consistency:
            terms["consistency"] = _mean(consistency_losses(full, incomplete), served)
        if self.information is not None:
            own = self.config.mutual_information == "as_released"
            target = paths.incomplete_z if own else paths.full_z.detach()
            terms["mutual_information"] = _mean(self.information(paths.incomplete_z, target), served)
        for name, adversary, one, other in (
            ("entropy", self.entropy, entropy_map(full), entropy_map(incomplete)),
            ("feature", self.feature, paths.full_z, paths.incomplete_z),
        ):
            if adversary is not None:
                terms[f"{name}_adversarial"] = _mean(adversary.fooled(other), served)
                of_full, of_incomplete = adversary.told_apart(one, other)
                terms[f"{name}_discriminator"] = (_mean(of_full, everyone) + _mean(of_incomplete, served)) / 2
        return terms

    def kept(self, batch: Batch, epoch: int, channels: int) -> tuple[Tensor, Tensor]:
        """Dropout of whole channels: (B, C) factors for each path, functions of seed, epoch and index."""
        share = self.config.dropout
        rows = [
            torch.rand(2, channels, generator=torch_rng(self.task.seed, "dropout", epoch, index))
            for index in batch.index.tolist()
        ]
        factors = (torch.stack(rows, dim=1) >= share).float() / (1 - share)
        full, incomplete = factors.to(batch.images.device)
        return full, incomplete

    def scores(self, network: ACN, batch: Batch) -> Tensor:
        """The task's validation scores of all subsets that the network serves: (P,) from 0 to 1."""
        if not network.config.given:
            return self.task.scores(network, batch)
        if not bool(network.serves(batch.present).all()):
            return torch.empty(0)
        return self.task.scores(network, batch, [network.only(batch.present[0])])


def sigmoid_dice_loss(logits: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """1 − Dice of each class's sigmoid, summed over the classes but the background (as in the release).

    Dice = 2 Σpy / (Σp² + Σy²) over all voxels of the batch (of all processes). A class that is nowhere in it costs 1
    and moves nothing.

    Args:
        logits: (B, K, X, Y, Z), float32.
        label: (B, X, Y, Z) channels 0 to K − 1.
        counted: (B,) bool, which sub-volumes count. If none does, the loss is 0.
    """
    guess, truth = logits[:, 1:].sigmoid(), F.one_hot(label, logits.shape[1]).movedim(-1, 1)[:, 1:]
    rows, voxels = counted[:, None, None, None, None], (0, 2, 3, 4)
    common, sizes = (guess * truth * rows).sum(voxels), ((guess**2 + truth) * rows).sum(voxels)
    both, either, number = summed(torch.stack([common, sizes, counted.sum().expand_as(sizes)]))
    return torch.sum((1 - 2 * both / (either + SMOOTH)) * (number > 0))


def consistency_losses(full: Tensor, incomplete: Tensor) -> Tensor:
    """Mean squared distance of two paths' sigmoids, summed over the classes but the background: (B,)."""
    distance = (full[:, 1:].sigmoid() - incomplete[:, 1:].sigmoid()) ** 2
    losses: Tensor = distance.mean(dim=(2, 3, 4)).sum(dim=1)
    return losses


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values (B,) that count, of all processes; 0 if none does."""
    total, number = summed(torch.stack([(values * counted).sum(), counted.sum()])).unbind()
    return total / number.clamp(min=1)
