"""BrainMVP's linear decoder: what it is made of, and that it is linear, block by block."""

import pytest
import torch

from medprism.models import NetworkConfig
from medprism.models.linear_decoder import LinearDecoder


def decoder(channels=(2, 3, 4), strides=(1, 2, 4), out=2) -> LinearDecoder:
    torch.manual_seed(0)
    return LinearDecoder(channels, strides, out).double()


def test_each_voxel_is_one_linear_map_of_its_own():
    made = decoder()
    a, b = (torch.randn(2, 4, 2, 3, 1, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        zero = made(torch.zeros_like(a))
        torch.testing.assert_close(made(2 * a + 3 * b) - zero, 2 * (made(a) - zero) + 3 * (made(b) - zero))
        assert made(a).shape == (2, 2, 8, 12, 4)
        one = made(a[:, :, 1:2, 2:3])
        torch.testing.assert_close(made(a)[:, :, 4:8, 8:12], one)
    assert not made(torch.zeros_like(a)).diff(dim=2).any()  # the bias of the last layer alone


@pytest.mark.parametrize("backbone", ["unet", "uniformer", "unet3d"])
def test_it_fits_every_backbone(backbone):
    """From the bottleneck to the image, all of it trained."""
    net = NetworkConfig(backbone, width=2, levels=4).backbone_of(3, 0)
    made = LinearDecoder(net.channels, net.strides, 1)
    image = made(net.bottleneck(torch.randn(2, 1, 16, 24, 8)))
    assert image.shape == (2, 1, 16, 24, 8)
    image.square().mean().backward()
    assert all(p.grad.any() for p in made.parameters())


def test_strides_other_than_two():
    assert decoder((2, 4), (1, 4), 1)(torch.randn(1, 4, 2, 1, 1, dtype=torch.float64)).shape == (1, 1, 8, 4, 4)
