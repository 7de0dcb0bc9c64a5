"""Activations computed again: the same loss, gradients and state, in less memory, in training alone."""

import copy

import pytest
import torch
from torch import nn

from benchmarks.counts import count, one_thread
from medprism.errors import UserError
from medprism.models import NetworkConfig, Prism
from medprism.models.recompute import spare_memory

SHAPES = {
    "unet": NetworkConfig(width=4, levels=3),
    "unet3d": NetworkConfig("unet3d", width=4, levels=3),
    "uniformer": NetworkConfig("uniformer", width=4, levels=3),
    "uniformer, batch norm": NetworkConfig("uniformer", width=4, levels=3, norm="batch"),
    "swinunetr": NetworkConfig("swinunetr", width=12),
}


def both(shape, side=16):
    """A network, and its copy that spares memory."""
    torch.manual_seed(0)
    network = Prism(shape, 3, (side,) * 3)
    with torch.no_grad():
        for parameter in network.parameters():  # no block stays the identity
            parameter += 0.1 * torch.randn_like(parameter)
    sparing = copy.deepcopy(network)
    spare_memory(sparing)
    return network, sparing


def learnt(network, side, scans=2):
    """Loss and gradients of a pass."""
    network.zero_grad()
    x = torch.randn(scans, 1, side, side, side, generator=torch.Generator().manual_seed(1))
    z, _, images = network(x, torch.arange(scans) % 3)
    loss = images.square().mean() + z.square().mean()
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in network.named_parameters()}


@pytest.mark.parametrize("name", [n if n != "swinunetr" else pytest.param(n, marks=pytest.mark.slow) for n in SHAPES])
def test_the_same_loss_gradients_and_state(name):
    side = 64 if name == "swinunetr" else 16
    network, sparing = both(SHAPES[name], side)
    (loss, gradients), (same_loss, same_gradients) = (
        learnt(net, side, 1 if side == 64 else 2) for net in (network, sparing)
    )
    assert torch.equal(loss, same_loss)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[parameter], gradient, rtol=1e-6, atol=1e-7)
    assert network.state_dict().keys() == sparing.state_dict().keys()
    for key, value in network.state_dict().items():  # running statistics are counted once
        assert torch.equal(sparing.state_dict()[key], value)
    assert network.architecture == sparing.architecture


@pytest.mark.parametrize("name", ["unet", "unet3d", "uniformer"])
def test_a_step_takes_at_least_a_quarter_less_memory(name):
    with one_thread():
        plain, spared = (count(lambda net=net: learnt(net, 16)) for net in both(SHAPES[name]))
    assert spared["peak_bytes"] < 0.75 * plain["peak_bytes"]
    assert spared["flop"] > plain["flop"]


def test_nothing_is_computed_twice_where_nothing_is_trained():
    _, sparing = both(SHAPES["unet"])
    calls = []
    sparing.backbone.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    x, source = torch.randn(1, 1, 16, 16, 16), torch.tensor([0])
    with torch.no_grad():
        sparing(x, source)
    sparing.eval()(x, source)[2].sum().backward()
    assert len(calls) == 2
    sparing.train()(x, source)[2].sum().backward()
    assert len(calls) == 4


def test_a_network_without_such_a_backbone_is_refused():
    with pytest.raises(UserError, match=r"backbones of --network for compute.checkpointing, got Linear; leave it out"):
        spare_memory(nn.Linear(1, 1))
