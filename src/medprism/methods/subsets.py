"""Subsets of a subject's scans: one drawn for each sub-volume in each step, so that one network serves all of them."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from medprism.data.batch import Batch
from medprism.data.randomness import rng


def drawn_subsets(batch: Batch, epoch: int, modalities: tuple[str, ...], seed: int, full: float = 0.0) -> Tensor:
    """A non-empty subset of what is present, for each sub-volume (PUIR, Algorithm 2).

    Args:
        batch: B sub-volumes.
        epoch: with `batch.index` the key of all random draws.
        modalities: names in the order of the batch; the draws do not depend on that order.
        seed: of the run.
        full: share of the sub-volumes that get all their scans; of the others each subset is as likely as another.

    Returns:
        (B, M) bool.
    """
    chosen = torch.zeros_like(batch.present)
    for row, index in enumerate(batch.index.tolist()):
        draw = rng(seed, "subset", epoch, index)
        whole = draw.random() < full
        here = sorted(batch.present[row].nonzero()[:, 0].tolist(), key=lambda m: modalities[m])
        bits = int(draw.integers(1, 2 ** len(here)))
        for place, modality in enumerate(here):
            chosen[row, modality] = whole or bool(bits >> place & 1)
    return chosen


def all_subsets(present: Tensor) -> list[Tensor]:
    """All 2^n − 1 non-empty subsets of n present modalities: (M,) bool each, small ones first."""
    here = present.nonzero()[:, 0].tolist()
    subsets = []
    for size in range(1, len(here) + 1):
        for chosen in combinations(here, size):
            subset = torch.zeros_like(present)
            subset[list(chosen)] = True
            subsets.append(subset)
    return subsets
