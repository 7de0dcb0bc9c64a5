"""ACN's U-Net: the published size, shapes, what a block computes."""

import pytest
import torch
from torch.nn import functional as F

from medprism.models.residual_unet import NormalisedBlock, ResidualUNet


def test_the_published_number_of_parameters():
    with torch.device("meta"):
        network = ResidualUNet(4, 4, width=16)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 4.70


def test_shapes():
    network = ResidualUNet(3, 2, width=16)
    with torch.no_grad():
        features = network.encode(torch.randn(2, 3, 8, 24, 16))
        assert network.decode(features).shape == (2, 2, 8, 24, 16)
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (channels, 8 // stride, 24 // stride, 16 // stride)
        for channels, stride in zip(network.channels, network.strides, strict=True)
    ]
    assert network.channels == (16, 32, 64, 128)
    assert network.strides == (1, 2, 4, 8)
    assert [len(blocks) for blocks in network.blocks] == [1, 2, 2, 4]
    assert network.channels[-1] // network.blocks[-1][0].norm1.num_groups == 16


@pytest.mark.parametrize("width", [2, 3, 4])
def test_small_widths_and_one_voxel(width):
    network = ResidualUNet(1, 1, width)
    out = network.decode(network.encode(torch.randn(1, 1, 8, 8, 8)))
    out.square().mean().backward()
    assert out.isfinite().all()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_block_is_norm_relu_convolution_twice_added_to_the_input():
    torch.manual_seed(0)
    block, x = NormalisedBlock(16), torch.randn(2, 16, 4, 4, 4)
    y = x
    for conv in (block.conv1, block.conv2):
        grouped = y.view(2, 8, -1)
        y = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        y = F.conv3d(y.view_as(x).clamp(min=0), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(block(x), x + y, rtol=1e-4, atol=1e-5)


def test_the_decoder_adds_what_the_encoder_found():
    """With blocks that are the identity, a decoder is a sum of its levels, each repeated over its voxels."""
    torch.manual_seed(0)
    network = ResidualUNet(1, 1, width=4)
    for block in network.refine:
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
    features = [torch.randn(1, 4 * 2**level, *[8 // 2**level] * 3) for level in range(4)]
    with torch.no_grad():
        x = features[3]
        for level in (2, 1, 0):
            x = network.up[level](x)
            for axis in (2, 3, 4):
                x = x.repeat_interleave(2, dim=axis)
            x = x + features[level]
        torch.testing.assert_close(network.decode(features), network.head(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [8, 16, 24])
def test_gradients_in_bf16_are_those_in_float32(side):
    """On maps of a few voxels torch's are not, on CPUs that compute in bf16."""
    torch.manual_seed(0)
    network, x = ResidualUNet(1, 1, width=16), torch.randn(2, 1, side, side, side)
    made = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = network.decode(network.encode(x))
        out.float().square().mean().backward()
        made.append([parameter.grad.clone() for parameter in network.parameters()])
    for exact, fast in zip(*made, strict=True):
        assert (exact - fast).norm() < 0.2 * exact.norm()


def test_brainmvps_number_of_parameters():
    with torch.device("meta"):
        network = ResidualUNet(1, 1, width=32)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == 18.8


@pytest.mark.parametrize(("levels", "blocks"), [(2, [1, 2]), (5, [1, 2, 2, 4, 4])])
def test_other_levels(levels, blocks):
    network = ResidualUNet(3, 2, width=2, levels=levels)
    assert [len(one) for one in network.blocks] == blocks
    with torch.no_grad():
        features = network.encode(torch.randn(1, 1, 16, 32, 16))
        assert network.decode(features).shape == (1, 2, 16, 32, 16)
        assert [one.shape for one in network.decoded(features)] == [one.shape for one in features[:-1]]


def test_an_encoder_alone_has_no_decoder():
    network = ResidualUNet(3, 0, width=2)
    assert {name.split(".")[0] for name in network.state_dict()} == {"stem", "down", "blocks"}


def test_batch_equals_loop():
    torch.manual_seed(0)
    network, x = ResidualUNet(3, 3, width=4), torch.randn(3, 1, 16, 8, 8)
    with torch.no_grad():
        together = network.decode(network.encode(x))
        alone = torch.cat([network.decode(network.encode(scan[None])) for scan in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
