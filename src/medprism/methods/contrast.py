"""InfoNCE between two views of a sub-volume, with negatives from all processes.

PUIR's (Eq. 2) has keys without gradient; BrainMVP's (Rui et al. 2024, https://arxiv.org/abs/2410.10604, Eq. 4 and 5) is
symmetric and its gradients flow into both views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.errors import UserError, expect
from medprism.methods.distributed import gather_rows, world_size
from medprism.models.backbone import pooled


def info_nce(
    queries: Tensor,
    keys: Tensor,
    positive: Tensor,
    query_sample: Tensor,
    key_sample: Tensor,
    temperature: float,
    left_out: Tensor | None = None,
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
        left_out: (N, K) bool, further keys that are no negatives of a query. A query without any negative has the
            loss 0.

    Returns:
        (N,) losses.

    Raises:
        ValueError: all keys come from one sub-volume: without negatives the loss would be identically zero.
    """
    if bool((key_sample == key_sample[0]).all()):
        raise ValueError("expected at least two sub-volumes to contrast, got one; take a larger batch")
    logits = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
    own = F.one_hot(positive, len(keys)).bool()
    neither = query_sample[:, None] == key_sample[None]
    neither = (neither if left_out is None else neither | left_out) & ~own
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


@dataclass(frozen=True)
class ContrastConfig:
    """How the features of two views are contrasted.

    Attributes:
        temperature: τ of Eq. 4. With few negatives a high one leaves little to learn: at 1 (the release) the loss of
            three sub-volumes lies between 0.37 and 1.1, whatever the network does.
        pooled: compare means over space; otherwise whole feature maps, voxel by voxel (the release).
        projection: size of the embedding that two layers make of the pooled features (Chen et al. 2020, SimCLR); 0
            compares the features themselves (the release).
        same_modality: only scans of the same modality of other sub-volumes are negatives (Eq. 4); otherwise all scans
            of other sub-volumes are. Other scans of the same sub-volume never are.
    """

    temperature: float = 0.1
    pooled: bool = True
    projection: int = 0
    same_modality: bool = True

    def __post_init__(self) -> None:
        expect(0 < self.temperature < math.inf, "a positive number", "infonce.temperature", self.temperature)
        expect(self.projection >= 0, "0 or more", "infonce.projection", self.projection)
        if self.projection and not self.pooled:
            raise UserError(
                f"expected infonce.pooled with infonce.projection={self.projection}, got whole feature maps; their "
                "size would tie the projection to one size of crop"
            )


class ModalityContrast(nn.Module):
    """Symmetric InfoNCE between the two masked copies of each scan (Eq. 5).

    Args:
        config: the choices.
        channels: C of the feature maps.
    """

    def __init__(self, config: ContrastConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.project: nn.Module = nn.Identity()
        if config.projection:
            self.project = nn.Sequential(
                nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, config.projection)
            )

    def forward(self, f: Tensor, g: Tensor, sample: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        """Contrast the features of two copies; all processes call it at once.

        Args:
            f: (N, C, x, y, z) features of the copies filled by another scan.
            g: (N, C, x, y, z) features of the copies filled by the template, in the same order.
            sample: (N,) the sub-volume of each; a number that no other sub-volume of any process has.
            modality: (N,) of each.

        Returns:
            See `symmetric_info_nce`.

        Raises:
            ValueError: there is one sub-volume only.
        """
        kind = modality if self.config.same_modality else torch.zeros_like(modality)
        return symmetric_info_nce(self._embedding(f), self._embedding(g), sample, kind, self.config.temperature)

    def _embedding(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.project(pooled(features)) if self.config.pooled else features.float().flatten(1)
        return embedding


def symmetric_info_nce(f: Tensor, g: Tensor, sample: Tensor, kind: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE from f to g and from g to f, over the pairs of all processes.

    Row i of f and row i of g are a positive pair. Negatives are the rows of other sub-volumes of the same kind.

    Args:
        f: (N, D) embeddings; normalised here. Other processes may have another N.
        g: (N, D).
        sample: (N,) the sub-volume of each row.
        kind: (N,) only rows of one kind are contrasted, e.g. those of one modality.
        temperature: τ.

    Returns:
        The mean loss over all pairs and both directions, and the share of embeddings that are nearer to their partner
        than to any negative (detached; of those that have a negative). Both are the same in all processes. Gradients
        flow into f and g as queries and as keys and, as DistributedDataParallel takes the mean over processes, are
        those of this process's rows times the number of processes.

    Raises:
        ValueError: there is one sub-volume only.
    """
    all_f, samples, start = gather_keys(f, sample)
    all_g, kinds, _ = gather_keys(g, kind)
    all_f, all_g = _with_own(all_f, f, start), _with_own(all_g, g, start)
    positive = torch.arange(len(samples), device=f.device)
    other_kind = kinds[:, None] != kinds[None]
    both = [
        info_nce(queries, keys, positive, samples, samples, temperature, other_kind)
        for queries, keys in ((all_f, all_g), (all_g, all_f))
    ]
    loss = torch.stack(both).mean()
    return loss.detach() + world_size() * (loss - loss.detach()), _accuracy(all_f, all_g, samples, other_kind)


def _with_own(rows: Tensor, own: Tensor, start: int) -> Tensor:
    """The rows of all processes, this one's with gradient."""
    return torch.cat([rows[:start], own.to(rows), rows[start + len(own) :]])


@torch.no_grad()
def _accuracy(f: Tensor, g: Tensor, samples: Tensor, other_kind: Tensor) -> Tensor:
    """How often the positive is the most alike, in both directions; 1 if there is no negative at all."""
    alike = F.normalize(f.float(), dim=1) @ F.normalize(g.float(), dim=1).T
    negative = (samples[:, None] != samples[None]) & ~other_kind
    has = negative.any(dim=1)
    own = alike.diagonal()
    nearest = alike.masked_fill(~negative, -torch.inf)
    right = torch.cat([(own > nearest.amax(dim=1))[has], (own > nearest.amax(dim=0))[has]])
    return right.float().mean() if len(right) else alike.new_ones(())
