"""InfoNCE between two views of a sub-volume (PUIR, Eq. 2), with negatives from all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medprism.methods.distributed import gather_rows


def info_nce(
    queries: Tensor, keys: Tensor, positive: Tensor, query_sample: Tensor, key_sample: Tensor, temperature: float
) -> Tensor:
    """−log of the positive's share among the positive and the negatives, for each query.

    A query's positive is the other view of the same sub-volume in the same modality; its negatives are the keys of
    other sub-volumes. Keys of the same sub-volume in other modalities are neither and are left out.

    Args:
        queries: (N, D) embeddings; normalised here.
        keys: (K, D) embeddings.
        positive: (N,) index of each query's positive among the keys.
        query_sample: (N,) which sub-volume a query comes from.
        key_sample: (K,) which sub-volume a key comes from.
        temperature: t of Eq. 2.

    Returns:
        (N,) losses.

    Raises:
        ValueError: all keys come from one sub-volume: without negatives the loss would be identically zero.
    """
    if bool((key_sample == key_sample[0]).all()):
        raise ValueError("expected at least two sub-volumes to contrast, got one; take a larger batch")
    logits = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
    own = F.one_hot(positive, len(keys)).bool()
    neither = (query_sample[:, None] == key_sample[None]) & ~own
    return F.cross_entropy(logits.masked_fill(neither, -torch.inf), positive, reduction="none")


def gather_keys(keys: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, int]:
    """Keys of all processes.

    Args:
        keys: (K, D) of this process, without gradient.
        samples: (K,) the sub-volume of each.

    Returns:
        All keys, all samples, and the index at which this process's own keys begin.
    """
    all_keys, start = gather_rows(keys)
    all_samples, _ = gather_rows(samples)
    return all_keys, all_samples, start
