"""The Lightning module of every training: one network, one objective, manual steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medprism.data.batch import Batch
from medprism.errors import expect
from medprism.methods.distributed import average_gradients
from medprism.training.adamw import fused_adamw


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with linear warm-up and cosine decay to zero.

    Attributes:
        lr: peak learning rate (2e-4 in the paper with SwinUNETR-48; small networks take more).
        weight_decay: of AdamW (1e-5 in the release).
        warmup: share of all steps in which the rate rises.
        clip: largest norm of the gradient; 0 for no clipping, as in the release.
        average: decay of the running average of the weights over steps, which is what is validated and shipped
            (Polyak and Juditsky 1992); 0 ships the weights of the last step, as in the release.
    """

    lr: float = 2e-4
    weight_decay: float = 1e-5
    warmup: float = 0.05
    clip: float = 1.0
    average: float = 0.0

    def __post_init__(self) -> None:
        expect(0 < self.lr < math.inf, "a positive number", "optimiser.lr", self.lr)
        expect(0 <= self.weight_decay < math.inf, "0 or more", "optimiser.weight_decay", self.weight_decay)
        expect(0 <= self.warmup <= 1, "a share from 0 to 1", "optimiser.warmup", self.warmup)
        expect(0 <= self.clip < math.inf, "0 or more", "optimiser.clip", self.clip)
        expect(0 <= self.average < 1, "0 to below 1", "optimiser.average", self.average)

    def rate(self, step: int, steps: int) -> float:
        """The factor on `lr` at a step: rises linearly to 1, then falls as a cosine to 0."""
        rise = max(1, round(self.warmup * steps))
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


class Objective(Protocol):
    """What a network is trained for: a module, whose own parameters train too but are not shipped.

    Attributes:
        metric: name of the validation score; more is better.
        unit: of the score, "" for none.
        many_passes: whether a step calls `backward` several times.

    An objective may moreover have `unregularised`, parameters that are trained without weight decay and outside the
    clipping of gradients, and `unregularised_rate`, by what their learning rate is larger (1 if it has none); and
    `scores_trained`, that its scores are of the network as it is trained, not of the running average of its weights:
    parts of the objective that go with the network, such as a decoder, have no such average.
    """

    metric: str
    unit: str

    @property
    def many_passes(self) -> bool: ...  # noqa: D102 - an attribute

    def losses(
        self,
        network: Any,  # noqa: ANN401 - each objective has its own kind of network
        batch: Batch,
        epoch: int,
        backward: Callable[[Tensor], None] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted sum `loss` and its terms on one batch; all randomness is a function of seed, epoch, index.

        Args:
            network: what is trained.
            batch: B sub-volumes with any non-empty subsets of modalities.
            epoch: of the training.
            backward: is called on each part of the loss, if given.
        """
        ...

    def scores(self, network: Any, batch: Batch) -> Tensor:  # noqa: ANN401
        """Validation scores (P,) of the fixed crops of one subject; P may be 0. Their mean over subjects counts."""
        ...


class Training(L.LightningModule):
    """Trains a network by an objective; logs each term and the validation score.

    Args:
        network: what is trained and shipped.
        objective: gives the losses; its heads train too but are not shipped.
        optimiser: the optimiser's settings.
        steps: of the whole training, for the decay.
    """

    def __init__(self, network: nn.Module, objective: Objective, optimiser: OptimiserConfig, steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False  # a sequential schedule steps once after several backward passes
        self.network, self.objective, self.optimiser, self.steps = network, objective, optimiser, steps
        self.averaged: AveragedModel | None = None
        if optimiser.average:
            self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(optimiser.average))  # type: ignore[no-untyped-call]
            self.averaged.requires_grad_(False)

    @property
    def shipped(self) -> nn.Module:
        """The network that is validated and saved as the model."""
        return self.network if self.averaged is None else self.averaged.module

    def _trained(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union
        """AdamW over network and heads, its rate set by the step; what is not regularised is a group of its own."""
        config = self.optimiser
        apart = {id(parameter) for parameter in getattr(self.objective, "unregularised", ())}
        groups: list[dict[str, Any]] = [{"params": [p for p in self._trained() if id(p) not in apart]}]
        if free := [p for p in self._trained() if id(p) in apart]:
            rate = config.lr * getattr(self.objective, "unregularised_rate", 1.0)
            groups.append({"params": free, "lr": rate, "weight_decay": 0.0})
        adam = fused_adamw(groups, lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: config.rate(step, self.steps))
        return {"optimizer": adam, "lr_scheduler": schedule}

    def training_step(self, batch: Batch, _: int) -> None:
        """One step of the optimiser on one batch."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        many = self.objective.many_passes
        # Processes may have other numbers of sources, so the many backward passes of a step are not synchronised one by
        # one.
        with self.trainer.strategy.block_backward_sync() if self._parallel and many else nullcontext():  # type: ignore[attr-defined]
            losses = self.objective.losses(self.network, batch, self.current_epoch, self.manual_backward)
        if many:
            average_gradients(self._trained())
        if self.optimiser.clip:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.optimiser.clip)  # type: ignore[union-attr]
        optimizer.step()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        self.log_dict(
            {f"train/{name}": value for name, value in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch),
            sync_dist=self._parallel,
        )

    def validation_step(self, batch: Batch, _: int) -> None:
        """The objective's score of one subject's crops."""
        trained = getattr(self.objective, "scores_trained", False)
        scores = self.objective.scores(self.network if trained else self.shipped, batch)
        if len(scores):
            name = f"val/{self.objective.metric}"
            self.log(name, scores.mean(), batch_size=len(scores), on_epoch=True, sync_dist=self._parallel)

    @property
    def _parallel(self) -> bool:
        return self.trainer.world_size > 1
