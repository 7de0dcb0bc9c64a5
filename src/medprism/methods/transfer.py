"""Fine-tuning for the transfer from some modalities to others (PUIR, section 4.3).

Each source that a sub-volume has is encoded and decoded by itself, as in pre-training, without corrupted or turned
views; what is made of it is compared with every target that there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medprism.data.batch import Batch
from medprism.errors import expect
from medprism.methods.alignment import mean_anchor_losses
from medprism.methods.distributed import mean
from medprism.methods.puir import decomposition
from medprism.methods.scores import transfer_psnr
from medprism.models.prism import Prism


@dataclass(frozen=True)
class TransferConfig:
    """The objective: squared error of the targets, of weight 1, and what is added to it.

    Attributes:
        foreground: weight of the foreground's squared error, beside 1 for the whole volume (release: 10).
        invariance: weight of the alignment of a subject's representations, those of its targets' scans included, to
            their mean (Eq. 3); 0 switches it off.
    """

    foreground: float = 10.0
    invariance: float = 0.1

    def __post_init__(self) -> None:
        for name in ("foreground", "invariance"):
            expect(0 <= getattr(self, name) < math.inf, "0 or more", f"objective.{name}", getattr(self, name))


class Transfer(nn.Module):
    """The objective. It has no parameters of its own and draws nothing at random.

    Args:
        config: weights.
        modalities: names in the order of the batch.
        sources: those that are given.
        targets: those that are made; no source among them.
    """

    def __init__(
        self,
        config: TransferConfig,
        modalities: tuple[str, ...],
        sources: Collection[str],
        targets: Collection[str],
    ) -> None:
        super().__init__()
        self.config = config
        self.metric, self.unit, self.many_passes = "psnr", "dB", False
        self.register_buffer("sources", torch.tensor([name in sources for name in modalities]), persistent=False)
        self.register_buffer("targets", torch.tensor([name in targets for name in modalities]), persistent=False)

    def losses(
        self, network: Prism, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the network.
            batch: B sub-volumes, each with a source and a target at least.
            epoch: not looked at.
            backward: is called on the loss, if given.

        Returns:
            The weighted sum `loss` and each term that is on, means over the scans given in all processes; detached if
            `backward` is given.
        """
        del epoch
        given, wanted = self.present(batch)
        owner, source = given.nonzero(as_tuple=True)
        _, x_h, images = network(batch.images[given][:, None], source)
        made = decomposition(images, replace(batch, present=wanted), owner, source, self.config.foreground)
        terms = {"transfer": mean(made)}
        loss = terms["transfer"]
        if self.config.invariance:
            other, modality = wanted.nonzero(as_tuple=True)
            seen = network.personalise(network.bottleneck(batch.images[wanted][:, None], modality))
            terms["invariance"] = mean(mean_anchor_losses(torch.cat([x_h, seen]), torch.cat([owner, other])))
            loss = loss + self.config.invariance * terms["invariance"]
        if backward is not None:
            backward(loss)
            terms, loss = {name: value.detach() for name, value in terms.items()}, loss.detach()
        return {"loss": loss, **terms}

    def present(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The present sources and the present targets: (B, M) bool each."""
        assert isinstance(self.sources, Tensor)
        assert isinstance(self.targets, Tensor)
        return batch.present & self.sources, batch.present & self.targets

    def scores(self, network: Prism, batch: Batch) -> Tensor:
        """PSNR of every present target made from every present source (`transfer_psnr`)."""
        given, wanted = self.present(batch)
        return transfer_psnr(network, batch, given, wanted) if bool(given.any()) else torch.empty(0)
