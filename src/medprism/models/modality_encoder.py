"""MedMAP's encoder T: one convolution that takes every scan into a common space, before anything else sees it.

Liu et al., MedMAP, https://arxiv.org/abs/2408.09465, sections IV-A and VI-C. The paper gives no kernel size and does
not say whether its T* is one convolution shared by all modalities or one over all of them at once; both are here. See
docs/medmap.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from medprism.errors import UserError

SIDE = 3  # voxels of the kernel; not stated in the paper


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder.

    Attributes:
        encoder: `none`: z_j is the scan. `separate`: a convolution of its own for each modality ("non-shared T").
            `shared`: one convolution from 1 channel to M for all modalities (T* with the weights of `separate`).
            `joint`: one convolution from M channels to M, over all given scans at once, M times as many weights (the
            other reading of T*).
        leaks: only with `joint`: the convolution sees the scans that the network is not given, too, so that their
            content reaches the output. Numbers of such a network say nothing about missing scans.
    """

    encoder: Literal["none", "separate", "shared", "joint"] = "none"
    leaks: bool = False

    def __post_init__(self) -> None:
        if self.leaks and self.encoder != "joint":
            raise UserError(f"expected encoder=joint with leaks, got {self.encoder}; the others see one scan at a time")


class ModalityEncoder(nn.Module):
    """From scans to one latent z_j for each of them, of the same size.

    All weights are drawn as those of any convolution, and the identity is added: z_j starts as the scan plus a random
    filtering of it, so that no modality starts with next to nothing by bad luck. The paper does not say how they start.

    Args:
        config: which.
        modalities: M.

    Attributes:
        channels: C of each z_j.
    """

    def __init__(self, config: EncoderConfig, modalities: int) -> None:
        super().__init__()
        self.config = config
        self.channels = modalities if config.encoder == "shared" else 1
        self.conv: nn.Conv3d | None = None
        if config.encoder == "none":
            return
        scans = 1 if config.encoder == "shared" else modalities
        groups = modalities if config.encoder == "separate" else 1
        self.conv = nn.Conv3d(scans, modalities, SIDE, padding=SIDE // 2, groups=groups)
        identity = torch.eye(modalities) if config.encoder == "joint" else torch.ones(modalities, 1)
        with torch.no_grad():
            self.conv.weight[..., SIDE // 2, SIDE // 2, SIDE // 2] += identity

    def forward(self, images: Tensor, given: Tensor) -> Tensor:
        """Encode the given scans.

        Args:
            images: (B, M, X, Y, Z) normalised. What is not given is never read; with `leaks` it is, and must be zero
                where there is no scan at all, as the loader has it.
            given: (B, M) bool, what the network may see.

        Returns:
            (B, M, C, X, Y, Z), zero where not given.
        """
        here = given[:, :, None, None, None]
        seen = images if self.config.leaks else torch.where(here, images, 0.0)
        if self.conv is None:
            return seen[:, :, None]
        if self.config.encoder == "shared":
            z = self.conv(seen.flatten(0, 1)[:, None]).unflatten(0, given.shape)
        else:
            z = self.conv(seen)[:, :, None]
        return torch.where(here[:, :, None], z, 0.0)
