"""Anchors against their formulas written out: values, gradients, incomplete subjects."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from medprism.errors import UserError
from medprism.methods.alignment import Alignment, AlignmentConfig, RunningAnchor, mean_anchor_losses


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


NAMES = ("t1n", "t1c", "t2f")
COMPLETE = torch.ones(2, 3, dtype=torch.bool)
MIXED = torch.tensor([[True, True, True], [True, False, True], [True, True, False], [False, False, True]])
ANCHORS = ("modality", "weighted", "normal", "mean")


def alignment(anchor, names=NAMES, weights=None):
    made = Alignment(AlignmentConfig(anchor, "t2f"), names)
    if weights is not None and made.weights is not None:
        made.weights.data = torch.tensor(weights)
    return made


def latents(present, seed=0):
    z = torch.randn(*present.shape, 2, 4, 3, 2, generator=torch.Generator().manual_seed(seed))
    return z.requires_grad_()


def test_modality_against_equation_12():
    z = latents(COMPLETE)
    loss = alignment("modality")(z, COMPLETE)
    per_element = z[0, 0].numel()
    expected = ((z - z[:, 2:]) ** 2).flatten(2).mean(2).sum() / (2 * 3)  # 1/(BJ) Σ_b Σ_j; the term of k is zero
    torch.testing.assert_close(loss, expected)
    loss.backward()
    away = 2 * (z - z[:, 2:]).detach() / (2 * 3 * per_element)
    torch.testing.assert_close(z.grad[:, :2], away[:, :2])
    torch.testing.assert_close(z.grad[:, 2], -away[:, 0] - away[:, 1])  # the anchor moves, too


def test_weighted_against_equation_13():
    made, w = alignment("weighted", weights=[0.5, -0.25, 1.5]), torch.tensor([0.5, -0.25, 1.5], requires_grad=True)
    z, other = latents(COMPLETE), latents(COMPLETE)
    loss = made(z, COMPLETE)
    anchor = torch.einsum("m,bm...->b...", w, other)[:, None]
    expected = ((other - anchor) ** 2).flatten(2).mean(2).sum() / (2 * 3)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(z.grad, other.grad)
    torch.testing.assert_close(made.weights.grad, w.grad)
    # in closed form: dL/dw_i = −2 Σ_b Σ_j <z_j − a, z_i> / (BJ · elements)
    away = (other - anchor).detach().sum(dim=1, keepdim=True)
    inner = -2 * (away * other.detach()).sum(dim=(0, *range(2, z.ndim)))
    torch.testing.assert_close(made.weights.grad, inner / z.numel())


def test_weighted_starts_as_modality_by_name():
    for names in (NAMES, ("t2f", "t1n", "t1c")):
        made = alignment("weighted", names)
        assert dict(zip(names, made.weights.tolist(), strict=True)) == {"t1n": 0.0, "t1c": 0.0, "t2f": 1.0}
        z = latents(MIXED)
        torch.testing.assert_close(made(z, MIXED), alignment("modality", names)(z, MIXED))
    assert Alignment(AlignmentConfig("weighted", "FLAIR"), NAMES).weights.tolist() == [0, 0, 1]  # any alias will do


def test_normal_against_the_divergence_of_torch():
    z = (3 * latents(COMPLETE) + 1).detach().requires_grad_()
    loss = alignment("normal")(z, COMPLETE)
    rows, standard = z.flatten(2), Normal(torch.tensor(0.0), torch.tensor(1.0))
    expected = kl_divergence(Normal(rows.mean(2), rows.std(2, correction=0)), standard).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    average, variance = (x[..., None] for x in (rows.mean(2), rows.var(2, correction=0)))
    gradient = (average + (rows - average) * (1 - 1 / variance)) / rows.numel()  # d/dm = m, d/ds = s − 1/s
    torch.testing.assert_close(z.grad.flatten(2), gradient.detach())


def test_normal_is_zero_for_standard_moments_and_finite_for_constants():
    values = torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(1, 1, 4)
    one = torch.ones(1, 1, dtype=torch.bool)
    made = Alignment(AlignmentConfig("normal"), ("ct",))
    assert abs(made(values, one).item()) < 1e-5
    constant = torch.full((1, 1, 4), 2.0, requires_grad=True)
    loss = made(constant, one)
    loss.backward()
    assert 2.0 < loss.item() < 20
    torch.testing.assert_close(constant.grad, torch.full((1, 1, 4), 0.5))  # to the mean of 0; no spread to grow


def test_mean_has_the_gradients_of_an_anchor_that_is_not_detached():
    z, other = latents(COMPLETE), latents(COMPLETE)
    loss = alignment("mean")(z, COMPLETE)
    expected = ((other - other.mean(dim=1, keepdim=True)) ** 2).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(z.grad, other.grad)


def test_no_anchor_costs_nothing():
    z = latents(MIXED)
    assert Alignment(AlignmentConfig(), NAMES)(z, MIXED).item() == 0


def pair_losses(made, z, present):
    """The term of each pair, at its place: (B, M)."""
    owner, source = present.nonzero(as_tuple=True)
    found = torch.zeros(present.shape)
    found[present] = made.losses(z[present], owner, source).detach()
    return found


def test_modality_of_incomplete_subjects():
    z, found = latents(MIXED), pair_losses(alignment("modality"), latents(MIXED), MIXED)
    distance = ((z - z[:, 2:]) ** 2).flatten(2).mean(2).detach()
    torch.testing.assert_close(found[0], distance[0])
    torch.testing.assert_close(found[1], distance[1] * torch.tensor([1, 0, 1]))
    assert not found[2:].any()  # without k there is no anchor; k alone is its own


def test_weighted_of_incomplete_subjects_rescales_what_is_present():
    w, z = [0.5, -0.25, 1.5], latents(MIXED).detach()
    found = pair_losses(alignment("weighted", weights=w), z, MIXED)
    for row, here in ((0, (0, 1, 2)), (1, (0, 2)), (2, (0, 1))):
        scale = sum(w) / sum(w[j] for j in here)
        anchor = scale * sum(w[j] * z[row, j] for j in here)
        for j in here:
            torch.testing.assert_close(found[row, j], ((z[row, j] - anchor) ** 2).mean())
    assert not found[3].any()  # a scan alone has nothing to be aligned to


@pytest.mark.parametrize("w", [[0.0, 0.0, 1.0], [0.1, 0.1, 2.0], [3.0, -2.9, 1.0], [0.0, 0.0, 0.0]])
def test_weighted_has_no_anchor_where_the_present_weights_sum_to_nearly_nothing(w):
    z, made = latents(MIXED[2:3]), alignment("weighted", weights=w)
    loss = made(z, MIXED[2:3])
    assert loss.item() == 0
    loss.backward()
    assert made.weights.grad.tolist() == [0, 0, 0]  # there is one, as processes that share gradients need
    assert not z.grad.any()
    torch.testing.assert_close(  # of complete subjects the sum may be anything
        alignment("weighted", weights=[1.0, -1.0, 0.0])(z, COMPLETE[:1]),
        ((z - (z[:, :1] - z[:, 1:2])) ** 2).mean(),
    )


@pytest.mark.parametrize("anchor", ANCHORS)
def test_absent_content_is_never_read(anchor):
    found = []
    for filling in (0.0, 1e30, math.inf, math.nan):
        made, z = alignment(anchor, weights=[0.5, -0.25, 1.5]), latents(MIXED).detach()
        z[~MIXED] = filling
        z.requires_grad_()
        loss = made(z, MIXED)
        loss.backward()
        assert loss.item() > 0
        assert not z.grad[~MIXED].any()
        found.append([loss.detach(), z.grad, *(p.grad for p in made.parameters())])
    for others in found[1:]:
        assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(found[0], others, strict=True))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_order_of_modalities_is_irrelevant(anchor):
    weights, turn = [0.5, -0.25, 1.5], [2, 0, 1]
    made = alignment(anchor, weights=weights)
    turned = alignment(anchor, tuple(NAMES[i] for i in turn), [weights[i] for i in turn])
    z = latents(MIXED)
    torch.testing.assert_close(turned(z[:, turn], MIXED[:, turn]), made(z, MIXED))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_batch_is_a_loop_over_its_subjects(anchor):
    made, z = alignment(anchor, weights=[0.5, -0.25, 1.5]), latents(MIXED)
    alone = [made(z[b : b + 1], MIXED[b : b + 1]) for b in range(4)]
    pairs = MIXED.sum(dim=1)
    torch.testing.assert_close(made(z, MIXED), (torch.stack(alone) * pairs).sum() / pairs.sum())


@pytest.mark.parametrize("anchor", ANCHORS)
def test_weights_are_trained_only_where_there_are_any(anchor):
    made = alignment(anchor)
    assert [name for name, _ in made.named_parameters()] == (["weights"] if anchor == "weighted" else [])
    assert set(made.state_dict()) == ({"weights"} if anchor == "weighted" else set())


@pytest.mark.parametrize("anchor", ANCHORS)
def test_autocast_does_not_round(anchor):
    z, made = latents(MIXED), alignment(anchor, weights=[0.5, -0.25, 1.5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made(z, MIXED)
    assert torch.equal(loss, made(z, MIXED))
    assert made(z.bfloat16(), MIXED).dtype == torch.float32


def test_weights_reach_the_mean_where_it_predicts_better():
    """Without the encoder's help, w goes to the least squares solution."""
    shared = torch.randn(64, 1, 5, 5, 5, generator=torch.Generator().manual_seed(0))
    z = shared + 0.5 * torch.randn(64, 3, 5, 5, 5, generator=torch.Generator().manual_seed(1))
    made, present = alignment("weighted"), torch.ones(64, 3, dtype=torch.bool)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        made(z, present).backward()
        optimiser.step()
    torch.testing.assert_close(made.weights.data, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


@pytest.mark.parametrize("anchor", ["modality", "weighted"])
def test_a_modality_is_needed_and_must_be_one_of_them(anchor):
    with pytest.raises(UserError, match=r"expected a modality for medmap\.modality"):
        AlignmentConfig(anchor)
    for name in ("ct", "nonsense"):
        with pytest.raises(UserError, match=f"expected one of t1n t1c t2f .* got {name}"):
            Alignment(AlignmentConfig(anchor, name), NAMES)


def test_weight_must_be_a_number():
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(UserError, match=r"0 or more for medmap\.weight"):
            AlignmentConfig("mean", weight=weight)
