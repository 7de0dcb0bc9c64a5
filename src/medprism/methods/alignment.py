"""Alignment of a subject's representations to an anchor: PUIR's running mean and mean, and the anchors of MedMAP.

PUIR: Tan et al., Eq. 3 and Algorithm 1, https://arxiv.org/abs/2411.06106. MedMAP: Liu et al., Eqs. 12 and 13 and
section VI-C, https://arxiv.org/abs/2408.09465. All distances are means over elements: MedMAP prints the squared norm, a
sum, which on whole patches would be some million times the other losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from medprism.data.modalities import lookup
from medprism.errors import expect
from medprism.methods.distributed import mean

LEAST = 0.1  # of the weights' absolute sum: present weights that sum to less make no anchor
FLOOR = 1e-6  # added to variances in a logarithm, so that a constant z_j costs a finite amount


@dataclass(frozen=True)
class AlignmentConfig:
    """MedMAP's alignment.

    Attributes:
        anchor: `modality`: z_k of one modality (P_mix^k). `weighted`: Σ w_j z_j with learnable w (P_mix^*). `normal`:
            the standard normal distribution (P_N). `mean`: over the subject's scans. `none`: no alignment.
        modality: k of `modality`; the one that has weight 1 at first in `weighted`, where all others have 0.
        weight: of the alignment beside the other losses, α in Eqs. 14, 16 and 17.
    """

    anchor: Literal["none", "modality", "weighted", "normal", "mean"] = "none"
    modality: str = ""
    weight: float = 0.125

    def __post_init__(self) -> None:
        if self.anchor in ("modality", "weighted"):
            expect(bool(self.modality), "a modality", f"medmap.modality with anchor={self.anchor}", "none")
        expect(0 <= self.weight < math.inf, "0 or more", "medmap.weight", self.weight)


class Alignment(nn.Module):
    """The distance of each z_j to its subject's anchor.

    `modality`, Eq. 12: a = z_k. Its own term is zero; gradients flow through the anchor too, as nothing in the paper
    stops them. A subject without scan k has no anchor.

    `weighted`, Eq. 13: a = Σ_j w_j z_j. The w are plain numbers, neither positive nor of sum 1 by force, and gradients
    flow through a to all of it. Of an incomplete subject only the present z_j can be summed: their w are scaled to sum
    to what all w sum to. There is no anchor where they sum to less than a tenth of the sum of all |w|, as at first
    where the modality that starts with 1 is absent.

    `mean`: a = the mean over the subject's scans. It is detached, which changes no gradient of the sum over a subject.

    A subject with a single scan has nothing to be aligned to in these three. Where there is no anchor the terms are
    zero; they still count in the mean.

    `normal`: KL(N(m, s²) ‖ N(0, 1)) = (s² + m²)/2 − log s − 1/2 for each z_j by itself, where m and s² are mean and
    variance over all elements (channels and voxels) of this z_j of this sub-volume. The paper prints
    E[2 log(1/v) + v² + m²/2 − 1/2] and calls v a variance. With v the standard deviation and the half taken of all
    three terms, [2 log(1/v) + v² + m²]/2 − 1/2, that is the formula here; as it is printed, the spread counts twice as
    much beside the mean and the least value is 1/2.

    Args:
        config: which anchor.
        modalities: names in the order of the batch. Weights belong to names.

    Attributes:
        weights: (M,) w of `weighted`, trained with the network but not shipped with it; else None.

    Raises:
        UserError: the anchor's modality is none of them.
    """

    def __init__(self, config: AlignmentConfig, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.modalities = config, modalities
        self.weights: nn.Parameter | None = None
        one = torch.zeros(len(modalities))
        if config.modality:
            name = lookup(config.modality) or config.modality
            expect(name in modalities, f"one of {' '.join(modalities)}", "the anchor's modality", config.modality)
            one[modalities.index(name)] = 1
        if config.anchor == "weighted":
            self.weights = nn.Parameter(one.clone())
        self.register_buffer("one", one, persistent=False)

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """The alignment loss L_A, unweighted.

        Args:
            z: (B, M, ...) the latent of each scan; content where `present` is False is never read.
            present: (B, M) bool.

        Returns:
            The mean over all present (subject, modality) pairs, of all processes; float32.
        """
        owner, source = present.nonzero(as_tuple=True)
        return mean(self.losses(z[present], owner, source))

    def losses(self, z: Tensor, owner: Tensor, source: Tensor) -> Tensor:
        """The distance of each pair to its subject's anchor.

        Args:
            z: (N, ...) the latent of each (subject, modality) pair.
            owner: (N,) the subject of each, 0 to B − 1.
            source: (N,) the modality of each, its place in `modalities`.

        Returns:
            (N,) float32, zero where there is no anchor.
        """
        z = z.float()
        if self.config.anchor == "none":
            return z.new_zeros(len(z))
        if self.config.anchor == "normal":
            return normal_losses(z)
        if self.config.anchor == "mean":
            return mean_anchor_losses(z, owner)
        scans = torch.bincount(owner)
        if self.weights is None:
            assert isinstance(self.one, Tensor)
            shares = self.one[source]
            anchored = shares.new_zeros(len(scans)).index_add(0, owner, shares) > 0
        else:
            shares, anchored = self._shares(owner, source, scans)
        return squared_distances(z, _sums(shares, z, owner), owner) * (anchored & (scans > 1))[owner]

    def _shares(self, owner: Tensor, source: Tensor, scans: Tensor) -> tuple[Tensor, Tensor]:
        """How much of each pair is in its anchor (N,), and which subjects have one (B,)."""
        assert self.weights is not None
        own, whole = self.weights[source], scans == len(self.weights)
        here = own.new_zeros(len(scans)).index_add(0, owner, own)
        anchored = whole | (here.abs() > LEAST * self.weights.abs().sum()).detach()
        scale = torch.where(whole, 1.0, self.weights.sum() / torch.where(anchored & ~whole, here, 1.0))
        return own * scale[owner], anchored


def normal_losses(z: Tensor) -> Tensor:
    """KL of a normal distribution with the moments of each row to the standard one, see `Alignment`.

    Args:
        z: (N, ...).

    Returns:
        (N,).
    """
    variance, average = torch.var_mean(z.float().flatten(1), dim=1, correction=0)
    return (variance + average**2 - torch.log(variance + FLOOR) - 1) / 2


class RunningAnchor:
    """The anchor of Algorithm 1: a detached running mean, a ← (a + x_h)/2, in the order in which sources come.

    The first source of a subject has nothing to be aligned to.
    """

    def __init__(self, subjects: int) -> None:
        self._anchors: list[Tensor | None] = [None] * subjects

    def losses(self, x_h: Tensor, owner: Tensor) -> Tensor:
        """Squared distance of each representation to its subject's anchor so far, which it then moves.

        Args:
            x_h: (N, C, x, y, z), at most one row a subject.
            owner: (N,) the subject of each row.

        Returns:
            (N,) mean over elements; zero for the first source of a subject.
        """
        losses = []
        for row, subject in zip(x_h.float(), owner.tolist(), strict=True):
            anchor = self._anchors[subject]
            losses.append(row.sum() * 0 if anchor is None else torch.mean((row - anchor) ** 2))
            self._anchors[subject] = row.detach() if anchor is None else (anchor + row.detach()) / 2
        return torch.stack(losses)


def mean_anchor_losses(x_h: Tensor, owner: Tensor) -> Tensor:
    """Squared distance of each representation to the detached mean over its subject's sources (PUIR, after Eq. 3).

    Args:
        x_h: (N, C, x, y, z).
        owner: (N,) the subject of each row.

    Returns:
        (N,) mean over elements; zero for a subject with one source.
    """
    x_h = x_h.float()
    shares = 1 / torch.bincount(owner).to(x_h)[owner]
    return squared_distances(x_h, _sums(shares, x_h.detach(), owner), owner)


def squared_distances(z: Tensor, anchors: Tensor, owner: Tensor) -> Tensor:
    """Squared distance of each row (N, ...) to its subject's anchor (B, ...), mean over elements: (N,)."""
    return torch.mean((z - anchors[owner]) ** 2, dim=tuple(range(1, z.ndim)))


def _sums(shares: Tensor, z: Tensor, owner: Tensor) -> Tensor:
    """Σ shares · z over the rows of each subject: (B, ...)."""
    scaled = shares.view(-1, *[1] * (z.ndim - 1)) * z
    return scaled.new_zeros((int(owner.max()) + 1, *z.shape[1:])).index_add(0, owner, scaled)
