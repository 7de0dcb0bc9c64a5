"""BrainMVP's decoder of pre-training, linear and without skips, so that only the bottleneck can tell what is masked.

Rui et al. 2024, https://arxiv.org/abs/2410.10604, as the authors' release trains it: transposed convolutions with
nothing between. 1.74 million parameters for UniFormer-S and one modality.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medprism.models.convolution import PointConv3d


class LinearDecoder(nn.Module):
    """Each voxel of the bottleneck to its block of the image, by one linear map.

    Args:
        channels: of a backbone's features, fine to coarse.
        strides: of the same.
        out_channels: channels of the image.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], out_channels: int) -> None:
        super().__init__()
        levels = zip(channels[:-1], channels[1:], strides[:-1], strides[1:], strict=True)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, far // near, stride=far // near, bias=False)
            for fine, coarse, near, far in levels
        )
        self.head = PointConv3d(channels[0], out_channels)

    def forward(self, z: Tensor) -> Tensor:
        """Bottleneck (N, C, x, y, z) to an image (N, out_channels, X, Y, Z)."""
        for up in reversed(self.up):
            z = up(z)
        out: Tensor = self.head(z)
        return out
