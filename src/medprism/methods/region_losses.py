"""The losses of RFNet and of what came after it: Dice and cross-entropy that weigh classes by how rare they are.

RFNet (Ding et al., ICCV 2021) and mmFormer (Zhang et al. 2022, https://arxiv.org/abs/2206.02425), section 2.4, as in
their released code. Both take probabilities, as coarse predictions are enlarged after the softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medprism.methods.distributed import summed

EPSILON = 1e-7  # voxels; a class that is neither there nor found has Dice 0
LEAST = 0.005  # probability: the cross-entropy of a voxel is at most 5.3 times its weight


def rfnet_dice(guess: Tensor, label: Tensor, group: Tensor | None = None, groups: int = 1) -> Tensor:
    """1 − Dice over all voxels of a group (of all processes), mean over all classes, the background among them.

    Args:
        guess: (N, K, X, Y, Z) probabilities.
        label: (N, X, Y, Z) channels 0 to K − 1.
        group: (N,) the group of each row; all in one, if not given.
        groups: G, number of groups.

    Returns:
        (G,) from 0 to 1, float32; 0 of a group without rows.
    """
    guess, truth = guess.float(), _by_class(label, guess.shape[1])
    both = torch.stack([(guess[:, k] * inside).sum((1, 2, 3)) for k, inside in enumerate(truth)], dim=1)
    sizes = torch.stack([inside.sum((1, 2, 3)) for inside in truth], dim=1)
    counts = torch.stack([both, guess.sum((2, 3, 4)) + sizes, torch.ones_like(both)])
    both, either, rows = summed(_grouped(counts, group, groups))
    loss = 1 - torch.mean(2 * both / (either + EPSILON), dim=1)
    return torch.where(rows[:, 0] > 0, loss, 0.0)


def rfnet_cross_entropy(guess: Tensor, label: Tensor, group: Tensor | None = None, groups: int = 1) -> Tensor:
    """Cross-entropy, each class of each row weighed by 1 − its share of the row's voxels, mean over all voxels.

    Args:
        guess: (N, K, X, Y, Z) probabilities; those below 0.005 count as 0.005.
        label: (N, X, Y, Z) channels 0 to K − 1.
        group: (N,) the group of each row; all in one, if not given.
        groups: G, number of groups.

    Returns:
        (G,) 0 or more, float32; 0 of a group without rows.
    """
    truth = _by_class(label, guess.shape[1])
    shares = torch.stack([inside.float().mean((1, 2, 3)) for inside in truth], dim=1)
    right = guess.float().gather(1, label[:, None])[:, 0]
    weight = (1 - shares).gather(1, label.flatten(1)).view_as(right)
    charged = (-weight * right.clamp(min=LEAST).log()).mean((1, 2, 3))
    total, rows = summed(_grouped(torch.stack([charged, torch.ones_like(charged)])[:, :, None], group, groups))
    return torch.div(total, rows.clamp(min=1))[:, 0]


def _by_class(label: Tensor, classes: int) -> list[Tensor]:
    """Where each class is: K of (N, X, Y, Z) bool."""
    return [label == k for k in range(classes)]


def _grouped(values: Tensor, group: Tensor | None, groups: int) -> Tensor:
    """Rows of (V, N, K) summed within groups: (V, G, K)."""
    if group is None:
        return values.sum(dim=1, keepdim=True)
    return values.new_zeros((len(values), groups, values.shape[2])).index_add(1, group, values)
