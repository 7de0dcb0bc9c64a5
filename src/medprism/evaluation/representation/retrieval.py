"""Who is it: a crop in one modality is looked for among the crops in another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist


@dataclass(frozen=True)
class Found:
    """What each of Q queries found.

    Attributes:
        top1: (Q,) 1 where the nearest is one that was looked for, 0 elsewhere.
        mrr: (Q,) 1 / rank of the nearest one that was looked for.
        chance_top1: (Q,) what a random order gives on average.
        chance_mrr: (Q,) likewise.
    """

    top1: NDArray[np.float64]
    mrr: NDArray[np.float64]
    chance_top1: NDArray[np.float64]
    chance_mrr: NDArray[np.float64]


def retrieve(
    queries: NDArray[np.float64], gallery: NDArray[np.float64], wanted: NDArray[np.bool_], among: NDArray[np.bool_]
) -> Found:
    """Rank a gallery by Euclidean distance to each query.

    Ties count against the query: a representation that is the same for everybody finds nobody.

    Args:
        queries: (Q, C).
        gallery: (G, C).
        wanted: (Q, G) which of the gallery are looked for, at least one for each query.
        among: (Q, G) which of the gallery take part, all that are wanted included.
    """
    distance = cdist(queries, gallery)
    nearest = np.where(wanted, distance, np.inf).min(axis=1)
    rank = 1 + (among & ~wanted & (distance <= nearest[:, None])).sum(axis=1)
    sizes = list(zip(among.sum(axis=1).tolist(), wanted.sum(axis=1).tolist(), strict=True))
    return Found(
        top1=(rank == 1).astype(np.float64),
        mrr=1 / rank,
        chance_top1=np.array([hits / size for size, hits in sizes]),
        chance_mrr=np.array([random_reciprocal_rank(size, hits) for size, hits in sizes]),
    )


def random_reciprocal_rank(size: int, hits: int) -> float:
    """Mean of 1 / rank of the first of `hits` among `size` in random order; Σ 1/r / size for one hit."""
    orders = math.comb(size, hits)
    return sum(math.comb(size - rank, hits - 1) / rank for rank in range(1, size - hits + 2)) / orders
