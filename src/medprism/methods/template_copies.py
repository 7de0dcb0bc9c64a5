"""Two copies of each sub-volume in which templates stand for some scans (BrainMVP, appendix A).

Rui et al. 2024, https://arxiv.org/abs/2410.10604. In either copy some of the scans are replaced by the frozen
templates of their modalities at the same place, each copy by a draw of its own. Here subjects lack scans, too: these
channels hold templates in both copies, so that afterwards all channels count as present. A sub-volume with a single
scan cannot lose it; parts of it are hidden behind its template instead, other parts in each copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medprism.data.batch import Batch
from medprism.data.randomness import rng
from medprism.errors import expect
from medprism.methods.masking import Masking
from medprism.models.filling import Filling

COPIES = 2


@dataclass(frozen=True)
class CopiesConfig:
    """Fine-tuning with templates.

    Attributes:
        consistency: weight of the mean squared difference between the bottlenecks of both copies; 0 switches it off.
        mask: how a sub-volume with a single scan is hidden.
    """

    consistency: float = 0.1
    mask: Masking = field(default_factory=Masking)

    def __post_init__(self) -> None:
        expect(0 <= self.consistency < math.inf, "0 or more", "copies.consistency", self.consistency)


class TemplateCopies:
    """Makes the copies. All draws are functions of seed, epoch, index and names.

    Args:
        filling: the templates.
        masking: of sub-volumes with a single scan.
        modalities: M names in the order of the batch; the draws do not depend on that order.
        seed: of the run.
    """

    def __init__(self, filling: Filling, masking: Masking, modalities: tuple[str, ...], seed: int) -> None:
        self.filling, self.masking, self.modalities, self.seed = filling, masking, modalities, seed

    def __call__(self, batch: Batch, epoch: int) -> Tensor:
        """Both copies, one after the other: (2 B, M, X, Y, Z), first copy of all sub-volumes, then the second of all.

        Args:
            batch: B sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all draws.
        """
        return torch.cat([self._copy(batch, epoch, number) for number in range(COPIES)])

    def templates(self, batch: Batch) -> Tensor:
        """Templates alone at the places of the crops: (B, M, X, Y, Z)."""
        return self.filling.filled(batch.images, torch.zeros_like(batch.present), batch.affine)

    def kept(self, batch: Batch, epoch: int, copy: int) -> Tensor:
        """Which scans a copy holds: (B, M) bool.

        Of n present scans 0 to n − 1 are replaced, each number as likely as another, and of each number each choice.
        """
        kept = batch.present.clone()
        for row, (index, here) in enumerate(zip(batch.index.tolist(), batch.present.tolist(), strict=True)):
            names = sorted(name for name, there in zip(self.modalities, here, strict=True) if there)
            draw = rng(self.seed, "template copy", copy, epoch, index)
            order, count = draw.permutation(len(names)).tolist(), int(draw.integers(len(names)))
            kept[row, [self.modalities.index(names[place]) for place in order[:count]]] = False
        return kept

    def _copy(self, batch: Batch, epoch: int, copy: int) -> Tensor:
        images = self.filling.filled(batch.images, self.kept(batch, epoch, copy), batch.affine)
        rows = (batch.present.sum(dim=1) == 1).nonzero()[:, 0]
        if len(rows):
            channel, (x, y, z) = batch.present[rows].int().argmax(dim=1), images.shape[2:]
            indices, names = batch.index[rows.to(batch.index.device)].tolist(), channel.tolist()
            keys = [
                ("template mask", copy, epoch, index, self.modalities[name])
                for index, name in zip(indices, names, strict=True)
            ]
            hidden = self.masking((x, y, z), self.seed, keys, images.device)[:, 0]
            templates = self.filling.at(batch.affine[rows.to(batch.affine.device)], (x, y, z), channel)
            images[rows, channel] = torch.where(hidden, templates, images[rows, channel])
        return images
