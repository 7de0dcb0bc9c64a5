"""The adversary: who is moved by what, values, any size of crop, the entropy of probabilities."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medprism.methods.adversary import Adversary, entropy_discriminator, entropy_map, feature_discriminator


def adversary(channels=3):
    torch.manual_seed(0)
    return Adversary(feature_discriminator(channels))


def maps(channels=3, side=4, rows=2):
    return (torch.randn(rows, channels, side, side, side, requires_grad=True) for _ in range(2))


def test_the_network_is_moved_by_one_loss_and_the_discriminator_by_the_other():
    judge, (full, incomplete) = adversary(), maps()
    judge.fooled(incomplete).sum().backward()
    assert incomplete.grad.any()
    assert all(parameter.grad is None for parameter in judge.parameters())
    incomplete.grad = None
    sum(judge.told_apart(full, incomplete)).sum().backward()
    assert full.grad is incomplete.grad is None
    assert all(parameter.grad.any() for parameter in judge.parameters())


def test_values():
    judge, (full, incomplete) = adversary(), maps()
    logits = [judge.discriminator(one).flatten(1) for one in (full, incomplete)]
    torch.testing.assert_close(judge.fooled(incomplete), F.softplus(logits[1]).mean(dim=1))
    of_full, of_incomplete = judge.told_apart(full, incomplete)
    torch.testing.assert_close(of_full, F.softplus(logits[0]).mean(dim=1))
    torch.testing.assert_close(of_incomplete, F.softplus(-logits[1]).mean(dim=1))
    for parameter in judge.parameters():
        nn.init.zeros_(parameter)
    for value in (judge.fooled(incomplete), *judge.told_apart(full, incomplete)):
        assert value.tolist() == pytest.approx([math.log(2)] * 2)


def layers(network):
    return [
        (layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in network if isinstance(layer, nn.Conv3d)
    ]


def test_the_papers_discriminators():
    entropy, feature = entropy_discriminator(4, 16), feature_discriminator(128)
    assert layers(entropy) == [(64, 4, 2), (128, 4, 2), (256, 4, 2), (512, 4, 2), (1, 4, 2)]
    assert layers(feature) == [(256, 3, 1), (512, 3, 1), (1, 3, 2)]
    for network in (entropy, feature):
        slopes = [layer.negative_slope for layer in network if isinstance(layer, nn.LeakyReLU)]
        assert slopes == [0.2] * (len(layers(network)) - 1)
        assert isinstance(network[-1], nn.Conv3d)


@pytest.mark.parametrize("side", [1, 2, 8, 16, 24, 32])
def test_crops_of_any_size(side):
    entropy = entropy_discriminator(3, 1)
    out = entropy(torch.randn(1, 3, side, side, 2 * side))
    last = math.floor(side / 2) + 1
    for _ in range(4):
        last = last // 2 + 1
    assert out.shape[:3] == (1, 1, last)
    assert feature_discriminator(4)(torch.randn(1, 4, side, 1, 1)).shape == (1, 1, (side + 1) // 2, 1, 1)


def test_the_entropy_is_that_of_the_probabilities():
    logits = 3 * torch.randn(2, 5, 2, 2, 2)
    p = logits.softmax(dim=1)
    torch.testing.assert_close(entropy_map(logits), -p * p.log2() / math.log2(5))
    assert entropy_map(torch.zeros(1, 4, 1, 1, 1)).flatten().tolist() == pytest.approx([0.25] * 4)


def test_certain_voxels_have_no_entropy_and_finite_gradients():
    logits = torch.tensor([0.0, 1e4, -1e4]).view(1, 3, 1, 1, 1).requires_grad_()
    made = entropy_map(logits)
    made.sum().backward()
    assert made.flatten().tolist() == [0, 0, 0]
    assert logits.grad.isfinite().all()


def test_each_learns_by_its_own_loss():
    """The discriminator learns to tell two maps apart; then a map that may move learns to pass for the other."""
    torch.manual_seed(0)
    judge, full = adversary(), torch.randn(4, 3, 4, 4, 4)
    moved = nn.Parameter(full + 2)
    learner = torch.optim.Adam([moved, *judge.parameters()], 1e-2)
    seen = {}
    for name, loss in (
        ("apart", lambda: sum(judge.told_apart(full, moved)).mean()),
        ("fooled", lambda: judge.fooled(moved).mean()),
    ):
        values = []
        for _ in range(5):
            learner.zero_grad()
            value = loss()
            value.backward()
            learner.step()
            values.append(float(value.detach()))
        seen[name] = values
        if name == "apart":
            assert torch.equal(moved, full + 2)
            held = [parameter.clone() for parameter in judge.parameters()]
    assert all(map(torch.equal, held, judge.parameters()))
    assert all(later < sooner for values in seen.values() for sooner, later in pairwise(values))
