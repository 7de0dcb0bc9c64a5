"""Fused AdamW against the plain one, in every memory format, and states of either."""

import copy

import pytest
import torch
from torch import nn

from medprism.training.adamw import fused_adamw
from medprism.training.module import OptimiserConfig, Training
from tests.methods.batches import batch
from tests.training.test_module import module_of

LAST = torch.channels_last_3d


def weights(memory_format):
    torch.manual_seed(0)
    return [
        nn.Parameter(torch.randn(7, 5, 3, 3, 3).contiguous(memory_format=memory_format)),
        nn.Parameter(torch.ones(7)),
    ]


def stepped(optimiser, *, memory_format=torch.contiguous_format, steps=3, first=0):
    """After some steps with gradients that lie in a given way."""
    for step in range(first, first + steps):
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                draw = torch.Generator().manual_seed(step)
                grad = torch.randn(parameter.shape, generator=draw)
                parameter.grad = grad.contiguous(memory_format=memory_format) if grad.ndim == 5 else grad
        optimiser.step()


def groups(parameters):
    return [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5, "weight_decay": 0.0}]


def plain(parameters):
    return torch.optim.AdamW(groups(parameters), lr=0.1, weight_decay=0.25, foreach=False)


def fused(parameters):
    return fused_adamw(groups(parameters), lr=0.1, weight_decay=0.25)


def assert_close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("of_weights", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("of_gradients", [torch.contiguous_format, LAST])
def test_the_same_as_plain_adamw_whichever_way_the_gradient_lies(of_weights, of_gradients):
    ours, theirs = weights(of_weights), weights(torch.contiguous_format)
    stepped(fused(ours), memory_format=of_gradients)
    stepped(plain(theirs), memory_format=of_gradients)
    assert_close(ours, theirs)


def test_a_gradient_has_the_very_strides_of_its_parameter_when_the_step_comes():
    """Those of sides of 1 too, which CUDA's kernel compares."""
    weight = nn.Parameter(torch.randn(4, 3, 1, 1, 1).to(memory_format=LAST))
    weight.grad = torch.randn(4, 3, 1, 1, 1)
    assert weight.grad.stride() != weight.stride()
    optimiser = fused_adamw([{"params": [weight]}], lr=0.1, weight_decay=0.0)
    optimiser.step()
    assert weight.grad.stride() == weight.stride() == optimiser.state[weight]["exp_avg"].stride()


def test_a_parameter_without_gradient_is_left_alone():
    parameters = weights(LAST)
    before = parameters[1].detach().clone()
    optimiser = fused(parameters)
    parameters[0].grad = torch.ones(7, 5, 3, 3, 3)
    optimiser.step()
    assert torch.equal(parameters[1], before)
    assert parameters[1] not in optimiser.state


def test_a_state_of_another_memory_format_is_gone_on_with():
    begun, whole = weights(torch.contiguous_format), weights(torch.contiguous_format)
    first = fused(begun)
    stepped(first, steps=2)
    ours = [nn.Parameter(begun[0].detach().contiguous(memory_format=LAST)), nn.Parameter(begun[1].detach())]
    second = fused(ours)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped(second, steps=2, first=2)
    stepped(plain(whole), steps=4)
    assert_close(ours, whole)


def test_a_state_that_was_not_fused_goes_on_unfused_bit_for_bit():
    """Checkpoints of versions before."""
    begun, whole = weights(LAST), weights(LAST)
    first = torch.optim.AdamW(groups(begun), lr=0.1, weight_decay=0.25)
    stepped(first, steps=2)
    ours = [nn.Parameter(value.detach().clone()) for value in begun]
    second = fused(ours)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped(second, steps=2, first=2)
    stepped(torch.optim.AdamW(groups(whole), lr=0.1, weight_decay=0.25), steps=4)
    assert all(torch.equal(one, other) for one, other in zip(ours, whole, strict=True))
    assert [group["fused"] for group in second.param_groups] == [None, None]


def test_trainings_take_it_and_learn_what_plain_adamw_does():
    """With gradients as a network has them."""
    module: Training = module_of(OptimiserConfig(lr=1e-2))
    other = copy.deepcopy(module)
    ours = module.configure_optimizers()["optimizer"]
    assert ours.param_groups[0]["fused"]
    theirs = torch.optim.AdamW(other.parameters(), lr=ours.param_groups[0]["lr"], weight_decay=1e-5)
    crops = batch([[True, False, True], [True, True, True]])
    for epoch in range(2):
        ours.zero_grad()
        module.objective.losses(module.network, crops, epoch, torch.Tensor.backward)
        for one, two in zip(module.parameters(), other.parameters(), strict=True):
            two.grad = one.grad.clone()
        ours.step()
        theirs.step()
    assert_close(module.parameters(), other.parameters())
