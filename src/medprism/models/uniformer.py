"""UniFormer in 3-D with a decoder, the backbone of BrainMVP (Rui et al. 2024, https://arxiv.org/abs/2410.10604).

Stages of UniFormer-S (Li et al. 2022, https://arxiv.org/abs/2201.04676): local blocks where maps are fine, global ones
where they are coarse. The decoder is UNETR's, of MONAI's blocks (Hatamizadeh et al. 2022,
https://arxiv.org/abs/2103.10504); pre-training may use `LinearDecoder` instead, which cannot see the skips.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.unetr_block import UnetrUpBlock
from torch import Tensor, nn

from medprism.models.backbone import StemConv3d
from medprism.models.convolution import PointConv3d, TinyConv3d
from medprism.models.recompute import recomputed
from medprism.models.uniformer_blocks import Embedding, GlobalBlock, LastNorm, LocalBlock, Norm, initialise, norm_of

DEPTHS = (3, 4, 8, 3)
WIDTHS = (1, 2, 5, 8)
"""Channels of each stage, and attention heads of the global ones, in units of `width`."""
LOCAL = 2
"""Stages of local blocks, the first ones."""


class UniFormer(nn.Module):
    """UniFormer-S with a full-resolution stem for the decoder.

    Args:
        in_channels: M, the channels of the stem.
        out_channels: channels of the output; 0 for an encoder without decoder.
        width: channels of the first stage and of a head; 64 is the published size, 22.04 million parameters.
        levels: resolutions, the full one and a stage each below; 5 for all four stages. The bottleneck's stride is
            2^(levels-1); less than 4 leave no global block.
        norm: of the local blocks and the bottleneck. `batch` as published ties a sample's features to what else is in
            its batch, which is small in 3-D.

    Raises:
        ValueError: fewer than 2 or more than 5 levels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int = 64, levels: int = 5, norm: Norm = "group"
    ) -> None:
        super().__init__()
        if not 2 <= levels <= len(DEPTHS) + 1:
            raise ValueError(f"expected 2 to {len(DEPTHS) + 1} levels, got {levels}")
        stages = [width * unit for unit in WIDTHS[: levels - 1]]
        self.channels, self.strides = (width, *stages), tuple(2**level for level in range(levels))
        self.fine = nn.Sequential(StemConv3d(in_channels, width, 3, padding=1), LastNorm(width))
        self.stages = nn.ModuleList(
            _stage(place, in_channels if place == 0 else stages[place - 1], channels, norm)
            for place, channels in enumerate(stages)
        )
        self.norm = norm_of(stages[-1], norm)
        self._repeatable = norm != "batch"  # a second run of a stage would count in the running statistics
        self.apply(initialise)
        if out_channels:
            pairs = zip(self.channels[:-1], self.channels[1:], strict=True)
            self.up = nn.ModuleList(_merging(coarse, fine) for fine, coarse in pairs)
            self.head = PointConv3d(width, out_channels)
        self.spares_memory = False
        self.memory_format = torch.channels_last_3d
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> list[Tensor]:
        """(N, 1 or M, X, Y, Z) to features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse."""
        x = x.contiguous(memory_format=self.memory_format)
        return [recomputed(self, self.fine, x), *self._coarser(x)]

    def bottleneck(self, x: Tensor) -> Tensor:
        """The last of `encode`'s features alone: without the stem that only a decoder needs."""
        return self._coarser(x.contiguous(memory_format=self.memory_format))[-1]

    def _coarser(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = recomputed(self, stage, x) if self._repeatable else stage(x)
            features.append(x)
        return [*features[:-1], self.norm(features[-1])]

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """The decoder's features (N, C_l, X/s_l, Y/s_l, Z/s_l), fine to coarse, without the bottleneck."""
        *skips, x = features
        levels = []
        for level in reversed(range(len(skips))):
            x = self.up[level](x, skips[level]) if level else recomputed(self, self.up[0], x, skips[0])
            levels.append(x)
        return levels[::-1]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features fine to coarse to an image (N, out_channels, X, Y, Z)."""
        out: Tensor = self.head(self.decoded(features)[0])
        return out


def _stage(place: int, in_channels: int, channels: int, norm: Norm) -> nn.Module:
    """Embedding and blocks of the stage at a place."""
    blocks: list[nn.Module] = []
    for _ in range(DEPTHS[place]):
        blocks.append(LocalBlock(channels, norm) if place < LOCAL else GlobalBlock(channels, WIDTHS[place]))
    return nn.Sequential(Embedding(in_channels, channels), *blocks)


def _merging(coarse: int, fine: int) -> nn.Module:
    """A transposed convolution, then a residual block of its result beside the skip."""
    block: nn.Module = UnetrUpBlock(
        3, coarse, fine, kernel_size=3, upsample_kernel_size=2, norm_name="instance", res_block=True
    )
    for module in block.modules():  # a map of 2 voxels comes out of a bottleneck of 1
        if type(module) is nn.Conv3d and module.kernel_size == (3, 3, 3):
            module.__class__ = TinyConv3d
    return block
