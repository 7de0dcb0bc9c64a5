"""Anchors against Algorithm 1 written out."""

import torch

from medprism.methods.alignment import RunningAnchor, mean_anchor_losses


def test_running_anchor_follows_algorithm_1():
    x = torch.randn(3, 2, 2, 2, 2)
    anchor = RunningAnchor(1)
    found = [anchor.losses(row[None], torch.tensor([0])).item() for row in x]
    a = x[0]
    second = ((x[1] - a) ** 2).mean().item()
    a = (a + x[1]) / 2
    third = ((x[2] - a) ** 2).mean().item()
    torch.testing.assert_close(torch.tensor(found), torch.tensor([0.0, second, third]))


def test_running_anchor_keeps_subjects_apart_and_stops_gradients():
    x = torch.randn(4, 2, 2, 2, 2, requires_grad=True)
    anchor = RunningAnchor(2)
    assert anchor.losses(x[:2], torch.tensor([0, 1])).tolist() == [0.0, 0.0]
    losses = anchor.losses(x[2:], torch.tensor([1, 0]))
    torch.testing.assert_close(losses[0], ((x[2] - x[1]) ** 2).mean())
    losses.sum().backward()
    assert not x.grad[:2].any()
    assert x.grad[2:].any()


def test_mean_anchor():
    x = torch.randn(4, 2, 2, 2, 2, requires_grad=True)
    owner = torch.tensor([0, 1, 0, 0])
    found = mean_anchor_losses(x, owner)
    mean = x[[0, 2, 3]].detach().mean(dim=0)
    expected = torch.stack([((x[i] - mean) ** 2).mean() if i != 1 else x[1].sum() * 0 for i in range(4)])
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(x.grad[0], 2 * (x[0] - mean).detach() / x[0].numel())
