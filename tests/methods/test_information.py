"""The bound of the mutual information: the normal distribution's own numbers, the regressor, the first variance."""

import math

import pytest
import torch
from torch.distributions import Normal

from medprism.methods.information import Information


def features(channels=4):
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(2, channels, 3, 3, 3, generator=draw) for _ in range(2))


def test_it_is_minus_the_log_likelihood_without_its_constant():
    torch.manual_seed(0)
    information, (s, t) = Information(4), features()
    with torch.no_grad():
        information.scale.copy_(torch.tensor([-3.0, 0.0, 1.0, 5.0]))
        deviation = information.variance.sqrt()[:, None, None, None]
        expected = -Normal(information.regressor(s), deviation).log_prob(t) - 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(information(s, t), expected.mean(dim=(1, 2, 3, 4)))


def test_by_hand():
    """A regressor of zeros and the first variance, 5, of every channel."""
    information, (s, t) = Information(4), features()
    assert information.variance.tolist() == pytest.approx([5.0] * 4)
    torch.nn.init.zeros_(information.regressor[-1].weight)
    expected = 0.5 * (t.square().mean(dim=(1, 2, 3, 4)) / 5 + math.log(5))
    torch.testing.assert_close(information(s, t), expected)


def test_the_variance_stays_positive():
    information = Information(2)
    torch.nn.init.constant_(information.scale, -1e3)
    assert information.variance.tolist() == pytest.approx([1e-5] * 2)


def test_the_published_regressor():
    information = Information(128)
    assert sum(parameter.numel() for parameter in information.parameters()) == 3 * 128**2 + 128
    assert [type(layer).__name__ for layer in information.regressor] == ["Conv3d", "ReLU", "Conv3d", "ReLU", "Conv3d"]


def test_the_variance_of_a_channel_learns_how_far_off_the_regressor_is():
    information, (s, _) = Information(2), features(2)
    torch.nn.init.zeros_(information.regressor[-1].weight)
    t = torch.ones(2, 2, 3, 3, 3) * torch.tensor([0.5, 3.0])[None, :, None, None, None]
    learner = torch.optim.Adam([information.scale], 0.3)
    for _ in range(150):
        learner.zero_grad()
        information(s, t).mean().backward()
        learner.step()
    assert information.variance.tolist() == pytest.approx([0.25, 9.0], rel=0.05)
