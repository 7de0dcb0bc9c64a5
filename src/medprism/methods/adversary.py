"""Two paths made alike by a discriminator that tries to tell them apart (ACN, https://arxiv.org/abs/2106.14591).

The discriminators are trained in the same step and by the same optimiser as the network, with one loss: what the
network is charged goes through them with their parameters held fixed, and what they are charged is of detached maps.
So neither is moved by the other's loss, there are no turns to take, and what the optimiser remembers of them is saved
and resumed with everything else. (The release makes their optimisers anew in each step.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLU


class Adversary(nn.Module):
    """A discriminator of two paths, 0 for the full one and 1 for the incomplete one.

    It computes in float32, as all losses, also because bf16 on CPUs is wrong for small maps (see `TinyConv3d`).

    Args:
        discriminator: from maps (B, C, x, y, z) to any number of logits a sub-volume.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def fooled(self, incomplete: Tensor) -> Tensor:
        """How far the incomplete path is from passing for the full one.

        Args:
            incomplete: (B, C, x, y, z).

        Returns:
            (B,) cross-entropy, whose gradient reaches the map but not the discriminator.
        """
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        with _exactly(incomplete):
            return _told(functional_call(self.discriminator, fixed, (incomplete.float(),)), 0.0)

    def told_apart(self, full: Tensor, incomplete: Tensor) -> tuple[Tensor, Tensor]:
        """How far the discriminator is from telling which path maps (B, C, x, y, z) are of.

        Returns:
            (B,) cross-entropy of the maps of each path, whose gradient reaches the discriminator but not the maps.
        """
        with _exactly(full):
            logits = self.discriminator(torch.cat([full.detach(), incomplete.detach()]).float())
        return _told(logits[: len(full)], 0.0), _told(logits[len(full) :], 1.0)


def _exactly(maps: Tensor) -> torch.autocast:
    """A block that computes in float32, also in one that does not."""
    return torch.autocast(maps.device.type, enabled=False)


def _told(logits: Tensor, truth: float) -> Tensor:
    """Cross-entropy of logits (B, ...) for one and the same truth, mean over a sub-volume: (B,)."""
    logits = logits.flatten(1)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth), reduction="none").mean(dim=1)


def entropy_discriminator(classes: int, width: int) -> nn.Sequential:
    """Five convolutions of side 4 and stride 2.

    They are padded by 2 voxels, so that n voxels become ⌊n/2⌋ + 1 and crops of any size can be taken; padded by 1, as
    is usual, they would need 32.

    Args:
        classes: K.
        width: of the networks, 16 for the 64, 128, 256 and 512 channels of the paper.
    """
    channels = [classes, 4 * width, 8 * width, 16 * width, 32 * width, 1]
    return _leaky(nn.Conv3d(fine, coarse, 4, stride=2, padding=2) for fine, coarse in pairwise(channels))


def feature_discriminator(channels: int) -> nn.Sequential:
    """Three convolutions of side 3, the last of stride 2, of a bottleneck with C channels (128 in the paper)."""
    widths = [channels, 2 * channels, 4 * channels, 1]
    return _leaky(
        nn.Conv3d(fine, coarse, 3, stride=2 if coarse == 1 else 1, padding=1) for fine, coarse in pairwise(widths)
    )


def _leaky(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Layers with leaky ReLUs between them."""
    first, *others = layers
    return nn.Sequential(first, *(module for layer in others for module in (nn.LeakyReLU(SLOPE), layer)))


def entropy_map(logits: Tensor) -> Tensor:
    """What each class adds to a voxel's entropy, as a share of the largest entropy: −p log p / log K.

    p is the softmax of the logits: the probabilities themselves. The release takes another softmax of its sigmoids,
    after which no voxel can be certain: with 4 classes every entropy is above 0.91 of the largest.

    Args:
        logits: (B, K, X, Y, Z).

    Returns:
        The same shape; its sum over K is from 0 to 1.
    """
    logs = logits.float().log_softmax(dim=1)
    return -logs.exp() * logs / math.log(logits.shape[1])
