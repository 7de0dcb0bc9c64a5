"""What teacher and student of PMKL are made of: a residual encoder, attention over modalities, a decoder.

Chen et al. 2022, https://doi.org/10.1109/TMI.2021.3119385; layer sizes as in the authors' release. Every convolution
pads by reflection, has a bias, and is followed by affine instance normalisation and a leaky ReLU of slope 0.2. The
release has a dropout between them whose rate is 0; it is left out. It draws all kernels from a normal distribution of
σ = 0.01, from which the last layer, the only one without normalisation, takes long to grow; here they are drawn as
torch does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medprism.errors import UserError

STRIDES = (1, 2, 4, 8)
LEAST = 2 * STRIDES[-1]  # voxels of a side: neither reflection nor instance normalisation is defined on a single voxel


@dataclass(frozen=True)
class Decoded:
    """What a pass gives in training.

    Attributes:
        logits: (B, K, X, Y, Z).
        feature: (B, C, X, Y, Z) what the last layer makes them of.
        z: (B, M, C', X, Y, Z) the latent of each scan behind MedMAP's encoder T, of a teacher; None of a student.
    """

    logits: Tensor
    feature: Tensor
    z: Tensor | None = None


class Encoder(nn.Module):
    """Four levels of three convolutions, the first added to the third; all but the first level begin with stride 2.

    Args:
        in_channels: of the input.
        width: channels at full resolution; they double at each level (16 to 128 in the release).

    Attributes:
        channels: of each level, fine to coarse.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels_of(width)
        before = (in_channels, *self.channels[:-1])
        self.enter = nn.ModuleList(
            block(a, b, stride=2 if level else 1)
            for level, (a, b) in enumerate(zip(before, self.channels, strict=True))
        )
        self.refine = nn.ModuleList(nn.Sequential(block(c, c), block(c, c)) for c in self.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, X, Y, Z), sides multiples of 8 from 16 on, to (N, C_l, X/s_l, Y/s_l, Z/s_l), fine first."""
        features = []
        for enter, refine in zip(self.enter, self.refine, strict=True):
            x = enter(x)
            x = x + refine(x)
            features.append(x)
        return features


class AttentionFusion(nn.Module):
    """The features of all modalities at one level into one, each weighed at each place by a number from 0 to 1.

    Args:
        channels: of each modality's feature and of the result.
        modalities: M.
    """

    def __init__(self, channels: int, modalities: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(convolution(modalities * channels, modalities, 3), norm(modalities))
        self.merge = block(modalities * channels, channels, kernel=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, M, C, x, y, z), zero where a scan is absent, to (B, C, x, y, z)."""
        maps = torch.sigmoid(self.attention(features.flatten(1, 2)))
        out: Tensor = self.merge((features * maps[:, :, None]).flatten(1, 2))
        return out


class Decoder(nn.Module):
    """Three steps up, each nearest neighbour and three convolutions, the second and third behind the encoder's feature.

    Args:
        channels: of the features, fine to coarse.
        classes: K.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.up = nn.ModuleList(block(coarse, fine) for fine, coarse in pairs)
        self.merge = nn.ModuleList(
            nn.Sequential(block(2 * fine, fine), block(fine, fine, kernel=1)) for fine, _ in pairs
        )
        self.head = convolution(channels[0], classes, 1)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Features fine to coarse to logits (B, K, X, Y, Z) and what they are made of (B, C, X, Y, Z)."""
        *skips, x = features
        for level in reversed(range(len(skips))):
            x = self.up[level](F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self.merge[level](torch.cat([x, skips[level]], dim=1))
        return self.head(x), x


def block(in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, activation."""
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel, stride), norm(out_channels), nn.LeakyReLU(0.2, inplace=True)
    )


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    """A convolution that keeps the size but for its stride."""
    mode: Literal["reflect", "zeros"] = "reflect" if kernel > 1 else "zeros"
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding=kernel // 2, padding_mode=mode)


def norm(channels: int) -> nn.GroupNorm:
    """Affine instance normalisation: groups of one channel, which unlike torch's own takes a batch of no rows, too."""
    return nn.GroupNorm(channels, channels)


def channels_of(width: int) -> tuple[int, ...]:
    """Channels of each level, fine to coarse."""
    return tuple(width * stride for stride in STRIDES)


def check_patch(patch_size: Sequence[int]) -> None:
    """Refuse patches that do not go through the network.

    Raises:
        UserError: a side is no multiple of 8, or below 16.
    """
    if any(side % STRIDES[-1] or side < LEAST for side in patch_size):
        raise UserError(
            f"expected patch sides that are multiples of {STRIDES[-1]} from {LEAST} on, got {tuple(patch_size)}; "
            "change patches.size"
        )
