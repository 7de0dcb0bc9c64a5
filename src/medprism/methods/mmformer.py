"""mmFormer's objective: the scans together, each scan alone, and the coarser levels of the decoder.

Zhang et al., MICCAI 2022, https://arxiv.org/abs/2206.02425, section 2.4; the alignment of MedMAP
(https://arxiv.org/abs/2408.09465), Eq. 16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medprism.data.batch import Batch
from medprism.data.randomness import digest
from medprism.methods.alignment import Alignment
from medprism.methods.region_losses import rfnet_cross_entropy, rfnet_dice
from medprism.methods.segmentation import Segmentation
from medprism.methods.terms import weighted
from medprism.models.mmformer import MmFormed, MmFormer
from medprism.models.mmformer_decoder import enlarged


class MmFormerLoss(nn.Module):
    """The objective: a sum of parts that all count alike, each Dice plus cross-entropy as published.

    The fused prediction is made from a subset of the scans, those of the separate decoder from all that there are.

    Args:
        task: gives labels, subsets and validation scores; its own losses are not used.
        alignment: of the latents, if any.
    """

    many_passes = False

    def __init__(self, task: Segmentation, alignment: Alignment | None) -> None:
        super().__init__()
        self.task, self.alignment = task, alignment
        self.metric, self.unit = task.metric, task.unit

    def losses(
        self, network: MmFormer, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the network.
            batch: B labelled sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws, dropout among them.
            backward: is called on the loss, if given.

        Returns:
            The sum `loss`; `fused`; `separate`, summed over modalities; `deep`, summed over levels; `alignment`,
            before its weight. Detached if `backward` is given.
        """
        given, label = self.task.subsets(batch, epoch), self.task.channels(batch)
        cuda = [batch.images.device] if batch.images.is_cuda else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(digest(self.task.seed, "dropout", epoch, *batch.index.tolist()) >> 193)
            made: MmFormed = network(batch.images, batch.present, given)
        fine, *coarse = (logits.float().softmax(dim=1) for logits in made.logits)
        alone = _charged(
            made.separate.float().softmax(dim=1), label[made.owner], made.source, len(self.task.modalities)
        )
        deep = [_charged(enlarged(guess, 2**level), label) for level, guess in enumerate(coarse, 1)]
        terms = {"fused": _charged(fine, label).sum(), "separate": alone.sum(), "deep": torch.cat(deep).sum()}
        weights = {}
        if self.alignment is not None:
            terms["alignment"] = self.alignment(made.z, batch.present)
            weights["alignment"] = self.alignment.config.weight
        return weighted(terms, weights, backward)

    def scores(self, network: Any, batch: Batch) -> Tensor:  # noqa: ANN401 - whatever has `segment`
        """Dice of each subset of a subject's scans and each region over all its crops: (P,), see `Segmentation`."""
        return self.task.scores(network, batch)


def _charged(guess: Tensor, label: Tensor, group: Tensor | None = None, groups: int = 1) -> Tensor:
    """Dice plus cross-entropy of each group of rows: (G,)."""
    return rfnet_dice(guess, label, group, groups) + rfnet_cross_entropy(guess, label, group, groups)
