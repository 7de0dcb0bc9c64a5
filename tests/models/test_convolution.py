"""Convolutions of tiny maps: exact gradients under autocast, and nothing else than a convolution otherwise."""

from itertools import product

import pytest
import torch
from torch import nn

from medprism.models.convolution import PointConv3d, TinyConv3d
from medprism.models.swinunetr import SwinUNETR
from medprism.models.unet import UNet


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_under_autocast_are_right_at_any_size(stride):
    torch.manual_seed(0)
    conv = TinyConv3d(16, 16, 3, stride=stride, padding=1)
    for shape in product((1, 2, 3), repeat=3):
        x, made = torch.randn(2, 16, *shape), []
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = conv(x)
            made.append(torch.autograd.grad(out.float().square().sum(), conv.weight)[0])
        assert (made[0] - made[1]).norm() < 0.05 * made[0].norm(), shape


@pytest.mark.parametrize("side", [3, 5])
def test_depthwise_gradients_are_right_up_to_the_size_of_the_kernel(side):
    torch.manual_seed(0)
    conv = TinyConv3d(16, 16, side, padding=side // 2, groups=16).to(memory_format=torch.channels_last_3d)
    for shape in [(size, *rest) for size in range(1, 7) for rest in ((2, 3), (6, 6))]:
        made = []
        x = torch.randn(2, 16, *shape).contiguous(memory_format=torch.channels_last_3d)
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = conv(x)
            made.append(torch.autograd.grad(out.float().square().sum(), conv.weight)[0])
        assert (made[0] - made[1]).norm() < 0.05 * made[0].norm(), shape


def test_it_is_a_convolution():
    torch.manual_seed(0)
    conv = TinyConv3d(3, 4, 3, padding=1)
    plain = nn.Conv3d(3, 4, 3, padding=1)
    plain.load_state_dict(conv.state_dict())
    for side in (2, 4):
        x = torch.randn(1, 3, side, side, side)
        assert torch.equal(conv(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(1, 3, 4, 4, 4)).dtype == torch.bfloat16


def test_double_precision_stays():
    conv = TinyConv3d(3, 4, 3, padding=1).double()
    assert conv(torch.randn(1, 3, 2, 2, 2).double()).dtype == torch.float64


def gradient(module, run, enabled):
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        out = run()
    out.float().square().sum().backward()
    return torch.cat([each.grad.flatten() for each in module.parameters() if each.grad is not None])


def test_a_unet_on_small_patches_and_the_bottleneck_of_swinunetr_have_right_gradients():
    torch.manual_seed(0)
    unet, scan = UNet(1, 1, width=8, levels=4), torch.randn(2, 1, 16, 16, 16)
    for block in unet.blocks:
        nn.init.normal_(block.conv2.weight, std=0.05)
    bottom, hidden = SwinUNETR(1, 0, width=12).net.encoder10, torch.randn(2, 192, 2, 2, 2)
    for module, run in ((unet.blocks[-1], lambda: unet.decode(unet.encode(scan))), (bottom, lambda: bottom(hidden))):
        exact, fast = (gradient(module, run, enabled) for enabled in (False, True))
        assert (exact - fast).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last_3d])
def test_a_kernel_of_one_voxel_is_a_convolution_and_stays_channels_last(given):
    torch.manual_seed(0)
    ours, theirs = PointConv3d(6, 5), nn.Conv3d(6, 5, 1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 4, 3, 5).to(memory_format=given).requires_grad_()
    found = ours(x)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    wanted = theirs(x)
    torch.testing.assert_close(found, wanted)
    grads = [
        torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
        for y, layer in ((found, ours), (wanted, theirs))
    ]
    torch.testing.assert_close(*grads)
