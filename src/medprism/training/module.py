"""The Lightning module of pre-training: one network, one objective, manual steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medprism.data.batch import Batch
from medprism.errors import expect
from medprism.methods.distributed import average_gradients
from medprism.methods.puir import PUIR
from medprism.models.prism import Prism


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


class Pretraining(L.LightningModule):
    """Trains a network by an objective; logs each term and the validation PSNR.

    Args:
        network: what is trained and shipped.
        objective: gives the losses; its heads train too but are not shipped.
        optimiser: the optimiser's settings.
        steps: of the whole training, for the decay.
    """

    def __init__(self, network: Prism, objective: PUIR, optimiser: OptimiserConfig, steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False  # a sequential schedule steps once after several backward passes
        self.network, self.objective, self.optimiser, self.steps = network, objective, optimiser, steps
        self.averaged: AveragedModel | None = None
        if optimiser.average:
            self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(optimiser.average))  # type: ignore[no-untyped-call]
            self.averaged.requires_grad_(False)

    @property
    def shipped(self) -> Prism:
        """The network that is validated and saved as the model."""
        return self.network if self.averaged is None else cast(Prism, self.averaged.module)

    def _trained(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union
        """AdamW over network and heads, its rate set by the step."""
        config = self.optimiser
        adam = torch.optim.AdamW(self._trained(), lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: config.rate(step, self.steps))
        return {"optimizer": adam, "lr_scheduler": schedule}

    def training_step(self, batch: Batch, _: int) -> None:
        """One step of the optimiser on one batch."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        sequential = self.objective.config.schedule == "sequential"
        # Processes may have other numbers of sources, so the many backward passes of a sequential step are not
        # synchronised one by one.
        with self.trainer.strategy.block_backward_sync() if self._parallel and sequential else nullcontext():  # type: ignore[attr-defined]
            losses = self.objective.losses(self.network, batch, self.current_epoch, self.manual_backward)
        if sequential:
            average_gradients(self._trained())
        if self.optimiser.clip:
            self.clip_gradients(optimizer, self.optimiser.clip, "norm")  # type: ignore[arg-type]
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
        """PSNR in the foreground of every present target generated from every other present source."""
        scores = transfer_psnr(self.shipped, batch)
        if len(scores):
            self.log("val/psnr", scores.mean(), batch_size=len(scores), on_epoch=True, sync_dist=self._parallel)

    @property
    def _parallel(self) -> bool:
        return self.trainer.world_size > 1


def transfer_psnr(network: Prism, batch: Batch) -> Tensor:
    """PSNR of each (subject, source, target ≠ source), on normalised intensities in the source's foreground.

    Args:
        network: the network.
        batch: B sub-volumes.

    Returns:
        (P,) dB, for P pairs of present scans; the data range is the target's in its sub-volume.
    """
    owner, source = batch.present.nonzero(as_tuple=True)
    *_, images = network(batch.images[batch.present][:, None], source)
    scores = []
    for row, (b, s) in enumerate(zip(owner.tolist(), source.tolist(), strict=True)):
        mask = batch.foreground[b, s]
        for t in batch.present[b].nonzero()[:, 0].tolist():
            if t == s or not bool(mask.any()):
                continue
            target = batch.images[b, t][mask]
            error = torch.mean((images[row, t].float()[mask] - target) ** 2)
            span = (target.max() - target.min()).clamp(min=1e-6)
            scores.append(10 * torch.log10(span**2 / error.clamp(min=1e-12)))
    return torch.stack(scores) if scores else torch.empty(0)
