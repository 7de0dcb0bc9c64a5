"""PUIR: pre-training of the personalised invariant representation x_h.

Tan et al., ICCV 2025, https://arxiv.org/abs/2411.06106, section 3.1 and Algorithm 1. Any non-empty subset of a
subject's modalities trains; the losses run over what is present. Where paper and release differ (the letters are
those of docs/puir.md), the paper is followed: rotations in the X-Y plane, equivariance before the prior, invariance
after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.data.batch import Batch
from medprism.data.randomness import rng
from medprism.errors import UserError, expect
from medprism.methods.alignment import Alignment, AlignmentConfig, RunningAnchor
from medprism.methods.contrast import gather_keys, info_nce
from medprism.methods.distributed import total, world_size
from medprism.methods.scores import transfer_psnr
from medprism.methods.views import Corruption, Rotation, rotations
from medprism.models.backbone import pooled
from medprism.models.prism import Prism

TERMS = ("contrastive", "decomposition", "equivariance", "invariance")


@dataclass(frozen=True)
class PUIRConfig:
    """The objective.

    Attributes:
        contrastive: weight of InfoNCE between views (Eq. 2); 0 switches it off, as with every weight.
        decomposition: weight of the reconstruction of all present modalities (Eq. 6).
        equivariance: weight of the rotation's classification (Eq. 5).
        invariance: weight of the alignment of a subject's representations (Eq. 3).
        foreground: weight of the foreground's MSE in the decomposition, beside 1 for the whole volume (release: 10).
        temperature: of InfoNCE (0.1 in the release, 0.5 in Tang et al.).
        embedding: size of the contrastive embedding.
        anchor: `running` mean in random source order (Algorithm 1), the `mean` over sources, or one of MedMAP's:
            `modality`, `weighted`, `normal`, see `Alignment`.
        anchor_modality: which one with `modality`, and which has all the weight at first with `weighted`.
        rotations: `z`, 4 quarter turns in the X-Y plane, or `cube`, all 24.
        corruption: how views are corrupted.
        schedule: `batched`, all sources in one pass, or `sequential`, one source at a time for the least memory.
    """

    contrastive: float = 1.0
    decomposition: float = 1.0
    equivariance: float = 1.0
    invariance: float = 1.0
    foreground: float = 10.0
    temperature: float = 0.1
    embedding: int = 512
    anchor: Literal["running", "mean", "modality", "weighted", "normal"] = "running"
    anchor_modality: str | None = None
    rotations: Literal["z", "cube"] = "z"
    corruption: Corruption = field(default_factory=Corruption)
    schedule: Literal["batched", "sequential"] = "batched"

    def __post_init__(self) -> None:
        for name in (*TERMS, "foreground"):
            expect(0 <= getattr(self, name) < math.inf, "0 or more", f"puir.{name}", getattr(self, name))
        expect(any(getattr(self, name) for name in TERMS), "a positive weight", f"one of {', '.join(TERMS)}", "none")
        expect(0 < self.temperature < math.inf, "a positive number", "puir.temperature", self.temperature)
        expect(self.embedding >= 1, "1 or more", "puir.embedding", self.embedding)
        if self.anchor in ("modality", "weighted"):
            expect(bool(self.anchor_modality), "a modality", f"puir.anchor_modality with anchor={self.anchor}", "none")


@dataclass(frozen=True)
class Views:
    """All present (sub-volume, modality) pairs of a batch, each seen twice.

    Attributes:
        owner: (N,) row of the batch of each pair.
        source: (N,) modality of each pair.
        order: (N,) place of the pair among its sub-volume's sources, in random order.
        turns: N indices of the first view's rotation.
        first: (N, 1, X, Y, Z) turned and corrupted.
        second: (N, 1, X, Y, Z) turned and corrupted anew.
    """

    owner: Tensor
    source: Tensor
    order: Tensor
    turns: list[int]
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Keys:
    """The second views' embeddings ψ(z), of all processes.

    Attributes:
        embeddings: (K, D).
        samples: (K,) the sub-volume of each.
        start: index of this process's first.
    """

    embeddings: Tensor
    samples: Tensor
    start: int


class PUIR(nn.Module):
    """The objective with its two heads and the anchor's weights, which are needed in pre-training only.

    Args:
        config: weights and choices.
        channels: C of the bottleneck.
        modalities: names in the order of the batch; they key the random draws, so their order does not matter.
        seed: of the run.

    Raises:
        UserError: the anchor needs all sources at once but the schedule gives one at a time, or its modality is none of
            them.
    """

    def __init__(self, config: PUIRConfig, channels: int, modalities: tuple[str, ...], seed: int) -> None:
        super().__init__()
        self.metric, self.unit = "psnr", "dB"
        if config.schedule == "sequential" and config.anchor in ("mean", "modality", "weighted") and config.invariance:
            raise UserError(
                f"expected anchor=running or normal with schedule=sequential, got {config.anchor}; it needs all "
                "sources at once"
            )
        self.config, self.modalities, self.seed = config, modalities, seed
        self.rotations: tuple[Rotation, ...] = rotations(config.rotations)
        self.project = nn.Linear(channels, config.embedding) if config.contrastive else None
        self.classify = nn.Linear(channels, len(self.rotations)) if config.equivariance else None
        self.alignment: Alignment | None = None
        if config.anchor != "running" and config.invariance:
            self.alignment = Alignment(AlignmentConfig(config.anchor, config.anchor_modality or ""), modalities)

    @property
    def many_passes(self) -> bool:
        """Whether a step calls `backward` several times."""
        return self.config.schedule == "sequential"

    def scores(self, network: Prism, batch: Batch) -> Tensor:
        """PSNR of every present target made from every other present source (`transfer_psnr`)."""
        return transfer_psnr(network, batch)

    def check_batch(self, size: int) -> None:
        """Refuse a batch in which the contrastive loss would be identically zero.

        Raises:
            UserError: one sub-volume in all processes together.
        """
        if self.config.contrastive and size * world_size() < 2:
            raise UserError(
                "expected a batch of at least 2 sub-volumes for the contrastive loss, got 1; with nothing to contrast "
                "it is identically zero; give --patches.batch 2 or switch it off by --puir.contrastive 0"
            )

    def losses(
        self, network: Prism, batch: Batch, epoch: int, backward: Callable[[Tensor], None] | None = None
    ) -> dict[str, Tensor]:
        """The objective on one batch.

        Args:
            network: the shared network.
            batch: B sub-volumes with any non-empty subsets of modalities.
            epoch: with `batch.index` the key of all random draws.
            backward: called on the loss of each pass: once if batched, once a source if sequential.

        Returns:
            The weighted sum `loss` and each term that is on, detached unless `backward` is None. They are means over
            pairs, scaled such that the mean over processes is the mean over the pairs of all processes.
        """
        views = self.views(batch, epoch)
        keys = self.keys(network, views, batch) if self.project is not None else None
        anchor = RunningAnchor(len(batch))
        pairs = len(views.owner)
        scale = world_size() / total(pairs, views.first.device)
        sums: dict[str, Tensor] = {}
        for rows in self._passes(views):
            terms = self.terms(network, batch, views, rows, keys, anchor)
            loss = torch.stack([getattr(self.config, name) * value.sum() for name, value in terms.items()]).sum()
            if backward is not None:
                backward(loss * scale)
            for name, value in {"loss": loss, **{name: value.sum() for name, value in terms.items()}}.items():
                value = value if backward is None else value.detach()
                sums[name] = sums.get(name, value.new_zeros(())) + value
        return {name: value * scale for name, value in sums.items()}

    def _passes(self, views: Views) -> Iterator[Tensor]:
        if self.config.schedule == "batched":
            yield torch.arange(len(views.owner), device=views.owner.device)
            return
        for place in range(int(views.order.max()) + 1):
            yield (views.order == place).nonzero()[:, 0]

    def terms(
        self,
        network: Prism,
        batch: Batch,
        views: Views,
        rows: Tensor,
        keys: Keys | None,
        anchor: RunningAnchor,
    ) -> dict[str, Tensor]:
        """Each term that is on, for the given rows of `views`: (R,)."""
        config, owner = self.config, views.owner[rows]
        z, x_h, images = network(views.first[rows], views.source[rows])
        terms = {}
        if self.project is not None and keys is not None:
            samples = batch.index.to(owner.device)[owner]
            embeddings = self.project(pooled(z))
            terms["contrastive"] = info_nce(
                embeddings, keys.embeddings, keys.start + rows, samples, keys.samples, config.temperature
            )
        if self.classify is not None:
            turns = torch.tensor(views.turns, device=rows.device)[rows]
            terms["equivariance"] = F.cross_entropy(self.classify(pooled(z)).float(), turns, reduction="none")
        if config.invariance:
            if self.alignment is not None:
                terms["invariance"] = self.alignment.losses(x_h, owner, views.source[rows])
            else:
                terms["invariance"] = _in_order(anchor, x_h, owner, views.order[rows])
        if config.decomposition:
            turned = [self.rotations[views.turns[row]] for row in rows.tolist()]
            straight = torch.stack([turn.inverse(image) for turn, image in zip(turned, images, strict=True)])
            terms["decomposition"] = decomposition(straight, batch, owner, views.source[rows], config.foreground)
        return terms

    def keys(self, network: Prism, views: Views, batch: Batch) -> Keys:
        """ψ(z) of the second views, through the encoder only and without gradient, as only ψ(z) is used of them."""
        assert self.project is not None
        with torch.no_grad():
            own = self.project(pooled(network.bottleneck(views.second, views.source))).float()
        embeddings, samples, start = gather_keys(own, batch.index.to(own.device)[views.owner])
        return Keys(embeddings, samples, start)

    def views(self, batch: Batch, epoch: int) -> Views:
        """Two turned and corrupted views of every present pair; absent content is not read."""
        owner, modality = batch.present.nonzero(as_tuple=True)
        scans = batch.images[batch.present][:, None]
        keys = [
            (epoch, int(batch.index[row]), self.modalities[m])
            for row, m in zip(owner.tolist(), modality.tolist(), strict=True)
        ]
        partners = _partners(owner, modality)
        first = [int(rng(self.seed, "turn", *key).integers(len(self.rotations))) for key in keys]
        second = [int(rng(self.seed, "second turn", *key).integers(len(self.rotations))) for key in keys]
        corrupt = self.config.corruption
        return Views(
            owner,
            modality,
            self._order(owner, keys),
            first,
            corrupt(self._turned(scans, first), partners, self.seed, [("first", *key) for key in keys]),
            corrupt(self._turned(scans, second), partners, self.seed, [("second", *key) for key in keys])
            if self.project is not None
            else scans[:0],
        )

    def _turned(self, scans: Tensor, turns: list[int]) -> Tensor:
        return torch.stack([self.rotations[turn](scan) for turn, scan in zip(turns, scans, strict=True)])

    def _order(self, owner: Tensor, keys: list[tuple[int, int, str]]) -> Tensor:
        """Random order of the sources of each sub-volume: the place (N,) of each pair among its owner's."""
        draws = [float(rng(self.seed, "order of sources", *key).random()) for key in keys]
        owners = owner.tolist()
        place = [
            sum(o == own and d < draw for o, d in zip(owners, draws, strict=True))
            for own, draw in zip(owners, draws, strict=True)
        ]
        return torch.tensor(place, device=owner.device)


def decomposition(images: Tensor, batch: Batch, owner: Tensor, source: Tensor, foreground: float) -> Tensor:
    """Weighted squared error against every present target (Eq. 6; weights as in the release).

    Args:
        images: (N, M, X, Y, Z), turned back.
        batch: the targets.
        owner: (N,) row of the batch of each image.
        source: (N,) modality that each image was made from.
        foreground: weight of the mean over the foreground; the mean over the whole volume has weight 1. The release
            takes the target's foreground alone; with scans whose foregrounds differ (PET reaches beyond the body of
            CT) a network then need not know where the target ends, so here it is the target's or the source's.

    Returns:
        (N,) mean over the present targets.
    """
    present = batch.present[owner]
    row, modality = present.nonzero(as_tuple=True)
    target = batch.images[owner[row], modality]
    mask = batch.foreground[owner[row], modality] | batch.foreground[owner[row], source[row]]
    error = (images[row, modality].float() - target) ** 2
    inside = (error * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1)
    losses = foreground * inside + error.mean(dim=(1, 2, 3))
    sums = losses.new_zeros(len(images)).index_add(0, row, losses)
    return sums / present.sum(dim=1)


def _partners(owner: Tensor, modality: Tensor) -> Tensor:
    """For each pair, its modality in the neighbouring sub-volume (2k with 2k+1) to swap boxes with, else itself."""
    pairs = list(zip(owner.tolist(), modality.tolist(), strict=True))
    row = {pair: number for number, pair in enumerate(pairs)}
    return torch.tensor([row.get((own ^ 1, m), row[own, m]) for own, m in pairs], device=owner.device)


def _in_order(anchor: RunningAnchor, x_h: Tensor, owner: Tensor, order: Tensor) -> Tensor:
    """Running-anchor losses of rows that hold several sources a subject, taken in their order: (R,)."""
    losses = x_h.new_zeros(len(x_h), dtype=torch.float32)
    for place in sorted(set(order.tolist())):
        rows = (order == place).nonzero()[:, 0]
        losses = losses.index_add(0, rows, anchor.losses(x_h[rows], owner[rows]))
    return losses
