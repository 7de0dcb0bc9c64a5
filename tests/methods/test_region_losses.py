"""The RFNet family's losses: by hand, against sums written out, groups."""

import math

import pytest
import torch
from torch.nn import functional as F

from medprism.methods.region_losses import rfnet_cross_entropy, rfnet_dice


def random_case(rows=3, classes=4, side=5):
    draw = torch.Generator().manual_seed(0)
    guess = (2 * torch.randn(rows, classes, side, side, side, generator=draw)).softmax(dim=1)
    return guess, torch.randint(0, classes, (rows, side, side, side), generator=draw)


def halves():
    """One row of 4 voxels, three quarters of class 0."""
    return torch.tensor([0, 0, 0, 1]).view(1, 1, 1, 4)


def uniform(classes=2):
    return torch.full((1, classes, 1, 1, 4), 1 / classes)


def test_dice_by_hand():
    # class 0: 2 · 1.5 / (2 + 3); class 1: 2 · 0.5 / (2 + 1)
    assert float(rfnet_dice(uniform(), halves())) == pytest.approx(1 - (3 / 5 + 1 / 3) / 2)


def test_cross_entropy_by_hand():
    # weights 1/4 and 3/4: (3 · 1/4 + 3/4) · log 2 over four voxels
    assert float(rfnet_cross_entropy(uniform(), halves())) == pytest.approx(1.5 * math.log(2) / 4)


def test_sure_answers():
    label = halves()
    right, wrong = (F.one_hot(x, 2).movedim(-1, 1).float() for x in (label, 1 - label))
    assert float(rfnet_dice(right, label)) == pytest.approx(0, abs=1e-6)
    assert float(rfnet_cross_entropy(right, label)) == 0
    assert float(rfnet_dice(wrong, label)) == 1
    assert float(rfnet_cross_entropy(wrong, label)) == pytest.approx(-1.5 * math.log(0.005) / 4)


def test_a_class_that_is_neither_there_nor_found_costs_its_share():
    """As published: its Dice is 0."""
    label = halves()
    sure = F.one_hot(label, 3).movedim(-1, 1).float()
    assert float(rfnet_dice(sure, label)) == pytest.approx(1 / 3)
    assert float(rfnet_cross_entropy(sure, label)) == 0


def test_against_sums_over_one_hot_labels():
    guess, label = random_case()
    truth = F.one_hot(label, 4).movedim(-1, 1).float()
    both, sizes = (guess * truth).sum((0, 2, 3, 4)), (guess + truth).sum((0, 2, 3, 4))
    close = torch.testing.assert_close
    close(rfnet_dice(guess, label), (1 - (2 * both / (sizes + 1e-7)).mean())[None])
    weights = (1 - truth.mean((2, 3, 4)))[:, :, None, None, None]
    charged = -weights * truth * guess.clamp(0.005, 1).log()
    close(rfnet_cross_entropy(guess, label), charged.sum(1).mean()[None])


@pytest.mark.parametrize("loss", [rfnet_dice, rfnet_cross_entropy])
def test_groups_are_as_if_alone(loss):
    guess, label = random_case(rows=4)
    found = loss(guess, label, torch.tensor([2, 0, 2, 3]), 5)
    alone = [0.0, *(float(loss(guess[rows], label[rows])) for rows in ([1], [0, 2], [3])), 0.0]
    expected = torch.tensor([alone[1], 0.0, alone[2], alone[3], 0.0])  # of those without rows nothing
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [rfnet_dice, rfnet_cross_entropy])
def test_gradients_are_finite_where_a_group_is_empty(loss):
    guess, label = random_case(rows=1)
    guess.requires_grad_()
    loss(guess, label, torch.tensor([1]), 3).sum().backward()
    assert guess.grad.isfinite().all()
    assert guess.grad.any()


@pytest.mark.parametrize("loss", [rfnet_dice, rfnet_cross_entropy])
def test_losses_are_float32(loss):
    guess, label = random_case()
    found = loss(guess.bfloat16(), label)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(guess, label), rtol=0.02, atol=0)
