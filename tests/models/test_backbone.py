"""The stem that takes one channel for all, and what is read off any backbone."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from medprism.models.backbone import StemConv3d, divisor, pooled


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"stride": 2}, {"padding": 1}])
def test_one_channel_stands_for_all(options):
    stem = StemConv3d(4, 5, 3, **options).double()
    x = torch.randn(2, 1, 7, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(stem(x), stem(x.expand(-1, 4, -1, -1, -1)))


def test_one_channel_gives_every_weight_the_gradient_of_the_repeated_input():
    stem = StemConv3d(3, 2, 3).double()
    x = torch.randn(1, 1, 6, 6, 6, dtype=torch.float64)
    [single] = torch.autograd.grad(stem(x).square().sum(), stem.weight)
    [repeated] = torch.autograd.grad(stem(x.expand(-1, 3, -1, -1, -1)).square().sum(), stem.weight)
    torch.testing.assert_close(single, repeated)


def test_several_channels_are_an_ordinary_convolution():
    stem, x = StemConv3d(3, 2, 3, padding=1), torch.randn(1, 3, 5, 5, 5)
    torch.testing.assert_close(stem(x), nn.functional.conv3d(x, stem.weight, stem.bias, padding=1))
    single = StemConv3d(1, 2, 3)
    assert single(x[:, :1]).shape == (1, 2, 3, 3, 3)


def test_like_shares_the_parameters_of_the_convolution():
    conv = nn.Conv3d(3, 2, 2, stride=2, padding=1, bias=False)
    stem = StemConv3d.like(conv)
    x = torch.randn(1, 3, 6, 6, 6)
    assert torch.equal(stem(x), conv(x))
    assert stem.weight is conv.weight
    assert stem.bias is None


@pytest.mark.parametrize("conv", [nn.Conv3d(3, 2, 3, padding="same"), nn.Conv3d(3, 2, 3, padding_mode="reflect")])
def test_like_refuses_a_padding_that_it_would_not_keep(conv):
    with pytest.raises(ValueError, match="zero padding"):
        StemConv3d.like(conv)


def test_divisor_is_the_coarsest_stride():
    assert divisor(SimpleNamespace(strides=(1, 2, 4, 8), channels=(1, 1, 1, 1))) == 8


def test_pooled_is_the_mean_over_space_in_float32():
    z = torch.randn(2, 3, 2, 4, 1).bfloat16()
    assert pooled(z).dtype == torch.float32
    torch.testing.assert_close(pooled(z), z.float().flatten(2).mean(dim=2))
