"""SwinUNETR, the paper's backbone, from MONAI's blocks (Hatamizadeh et al. 2022, https://arxiv.org/abs/2201.01266).

MONAI runs encoder and decoder in one forward; here they are taken apart at the bottleneck so that a representation
can be read, changed and decoded. The parameters keep MONAI's names, so weights go both ways.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn

from medprism.models.backbone import StemConv3d
from medprism.models.convolution import TinyConv3d
from medprism.models.recompute import recomputed
from medprism.models.window_attention import lean

DECODER = (*(f"decoder{n}" for n in range(1, 6)), "out")
"""MONAI's names for its blocks."""


class SwinUNETR(nn.Module):
    """MONAI's SwinUNETR with its bottleneck open.

    Args:
        in_channels: M, the channels of the stem.
        out_channels: channels of the output; 0 for an encoder without decoder.
        width: feature size, a multiple of 12; 48 in the paper.

    Patches have sides that are multiples of 32, and 64 at least in training (InstanceNorm has nothing to normalise in
    a bottleneck of one voxel).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 48) -> None:
        super().__init__()
        self.net = MonaiSwinUNETR(in_channels=in_channels, out_channels=out_channels or 1, feature_size=width)
        lean(self.net)
        self.channels = (width, width, 2 * width, 4 * width, 8 * width, 16 * width)
        self.strides = (1, 2, 4, 8, 16, 32)
        embed, first = self.net.swinViT.patch_embed, self.net.encoder1.layer
        embed.proj = StemConv3d.like(embed.proj)
        first.conv1.conv = StemConv3d.like(first.conv1.conv)
        if hasattr(first, "conv3"):  # the block's shortcut, there where the channels change
            first.conv3.conv = StemConv3d.like(first.conv3.conv)
        for module in self.net.encoder10.modules():  # the bottleneck of a patch of 64 voxels has 2
            if type(module) is nn.Conv3d and module.kernel_size == (3, 3, 3):
                module.__class__ = TinyConv3d
        if not out_channels:
            for name in DECODER:
                delattr(self.net, name)
        self.memory_format = torch.channels_last_3d  # in which convolutions on CPUs are twice as fast
        self.net.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    @property
    def spares_memory(self) -> bool:
        """See `spare_memory`; MONAI's transformer has its own way."""
        return any(getattr(module, "use_checkpoint", False) for module in self.net.swinViT.modules())

    @spares_memory.setter
    def spares_memory(self, wanted: bool) -> None:
        blocks: list[Any] = [module for module in self.net.swinViT.modules() if hasattr(module, "use_checkpoint")]
        for block in blocks:
            block.use_checkpoint = wanted

    def encode(self, x: Tensor) -> list[Tensor]:
        """(N, 1 or M, X, Y, Z) to features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse."""
        net = self.net
        x = x.contiguous(memory_format=self.memory_format)
        hidden = net.swinViT(x, net.normalize)
        return [
            recomputed(self, net.encoder1, x),
            net.encoder2(hidden[0]),
            net.encoder3(hidden[1]),
            net.encoder4(hidden[2]),
            hidden[3],
            net.encoder10(hidden[4]),
        ]

    def bottleneck(self, x: Tensor) -> Tensor:
        """The last of `encode`'s features alone: without the skips' blocks, most of an encoder's arithmetic."""
        return self.net.encoder10(self.net.swinViT(x, self.net.normalize)[4])  # type: ignore[no-any-return]

    @property
    def head(self) -> nn.Module:
        """The last layer, from the decoder's finest features to the output."""
        return self.net.out

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """The decoder's features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse, without the bottleneck."""
        net = self.net
        enc0, enc1, enc2, enc3, hidden3, bottleneck = features
        x = net.decoder5(bottleneck, hidden3)
        levels = [x]
        for decoder, skip in ((net.decoder4, enc3), (net.decoder3, enc2), (net.decoder2, enc1)):
            x = decoder(x, skip)
            levels.append(x)
        levels.append(recomputed(self, net.decoder1, x, enc0))
        return levels[::-1]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features fine to coarse to an image (N, out_channels, X, Y, Z)."""
        out: Tensor = self.head(self.decoded(features)[0])
        return out
