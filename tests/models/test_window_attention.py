"""Attention within windows against MONAI's."""

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from monai.networks.nets.swin_unetr import WindowAttention as MonaiWindowAttention

from medprism.models import window_attention
from medprism.models.window_attention import WindowAttention, lean


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cache", [1, 2**20])
def test_numbers_and_gradients_are_those_of_monai(masked, cache, monkeypatch):
    monkeypatch.setattr(window_attention, "CACHE", cache)
    torch.manual_seed(0)
    stock = MonaiWindowAttention(12, 3, (3, 3, 3), qkv_bias=True)
    torch.nn.init.normal_(stock.relative_position_bias_table)
    ours = WindowAttention.like(stock)
    mask = torch.where(torch.rand(5, 27, 27) > 0.3, 0.0, -100.0) if masked else None
    weight = torch.randn(10, 27, 12)
    found = []
    for module in (stock, ours):
        x = torch.randn(10, 27, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out = module(x, mask)
        grads = torch.autograd.grad((out * weight).sum(), [x, *stock.parameters()])
        found.append([out, *grads])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_fewer_tokens_than_the_window():
    stock = MonaiWindowAttention(8, 2, (3, 3, 3))
    x = torch.randn(4, 8, 8)
    torch.testing.assert_close(WindowAttention.like(stock)(x, None), stock(x, None), rtol=1e-4, atol=1e-6)


def test_all_of_a_network_are_replaced_and_its_names_stay():
    net = MonaiSwinUNETR(in_channels=1, out_channels=1, feature_size=12).eval()
    before, x = dict(net.state_dict()), torch.randn(1, 1, 64, 64, 64)
    with torch.no_grad():
        expected = net(x)
        lean(net)
        torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-4)
    assert list(net.state_dict()) == list(before)
    assert not [module for module in net.modules() if type(module) is MonaiWindowAttention]


def test_dropout_is_refused():
    with pytest.raises(ValueError, match="without dropout"):
        WindowAttention.like(MonaiWindowAttention(8, 2, (3, 3, 3), attn_drop=0.1))
