"""The residual U-Net: shapes, a start as the identity, intensities kept, one sample not told of another."""

import pytest
import torch

from medprism.models.unet import ResidualBlock, UNet


def unet(**changes) -> UNet:
    torch.manual_seed(0)
    return UNet(**{"in_channels": 3, "out_channels": 3, "width": 4, "levels": 3, **changes})


def awake(net: UNet) -> UNet:
    """With blocks that are not the identity any more."""
    for block in net.modules():
        if isinstance(block, ResidualBlock):
            torch.nn.init.normal_(block.conv2.weight, std=0.1)
    return net


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_features_have_the_channels_and_strides_that_it_says(levels):
    net = unet(levels=levels)
    x = torch.randn(2, 3, 16, 24, 8)
    features = net.encode(x)
    assert len(features) == levels
    for feature, channels, stride in zip(features, net.channels, net.strides, strict=True):
        assert feature.shape == (2, channels, 16 // stride, 24 // stride, 8 // stride)
    assert net.decode(features).shape == (2, 3, 16, 24, 8)


def test_a_fresh_block_is_the_identity_up_to_its_bias_and_learns():
    block, x = ResidualBlock(4), torch.randn(1, 4, 5, 5, 5)
    torch.testing.assert_close(block(x), x + block.conv2.bias.view(1, 4, 1, 1, 1))
    block(x).square().sum().backward()
    assert block.conv2.weight.grad.abs().sum() > 0


def test_block_against_its_formula():
    block, x = ResidualBlock(2), torch.randn(1, 2, 4, 4, 4)
    torch.nn.init.normal_(block.conv2.weight)
    y = block.conv2(torch.nn.functional.silu(block.conv1(torch.nn.functional.silu(x))))
    torch.testing.assert_close(block(x), x + y)


def test_intensities_are_not_normalised_away():
    """The finest feature of a fresh network is linear in the scan but for biases, and the output moves with it."""
    net, x = unet(), torch.randn(1, 1, 16, 16, 16)
    for bias in (net.stem.bias, net.blocks[0].conv2.bias):
        torch.nn.init.zeros_(bias)
    with torch.no_grad():
        once, thrice = net.encode(x), net.encode(3 * x)
        torch.testing.assert_close(thrice[0], 3 * once[0])
        two, ten = ((net.decode(net.encode(x + more)) - net.decode(once)).abs().mean() for more in (2, 10))
    assert float(ten / two) == pytest.approx(5, rel=0.1)


def test_bottleneck_is_of_one_scale_whatever_the_scan():
    net, x = awake(unet(width=8)), torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        for scan in (x, 100 * x):
            z = net.encode(scan)[-1].unflatten(1, (8, -1)).flatten(2)
            torch.testing.assert_close(z.mean(dim=2), torch.zeros(2, 8), rtol=0, atol=1e-4)
            torch.testing.assert_close(z.var(dim=2, correction=0), torch.ones(2, 8), rtol=1e-3, atol=1e-3)


def test_batch_equals_loop():
    net, x = awake(unet()), torch.randn(3, 1, 16, 16, 16)
    with torch.no_grad():
        together = net.decode(net.encode(x))
        alone = torch.cat([net.decode(net.encode(scan[None])) for scan in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_is_trained():
    net = awake(unet())
    net.decode(net.encode(torch.randn(1, 1, 16, 16, 16))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_widths_that_eight_groups_do_not_divide():
    assert unet(width=3, levels=2).norm.num_groups == 1
    assert unet(width=4, levels=3).norm.num_groups == 8
