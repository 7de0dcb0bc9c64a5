"""Alignment of a subject's representations to an anchor (PUIR, Eq. 3 and Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor


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
    same = (owner[:, None] == owner[None]).to(x_h)
    anchors = (same @ x_h.detach().flatten(1) / same.sum(dim=1, keepdim=True)).view_as(x_h)
    return torch.mean((x_h - anchors) ** 2, dim=tuple(range(1, x_h.ndim)))
