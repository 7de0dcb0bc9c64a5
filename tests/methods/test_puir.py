"""The objective: schedules agree, absent content is not read, parts switch off, nothing is silently zero."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.methods.puir import PUIR, TERMS, PUIRConfig, decomposition
from medprism.methods.views import Corruption
from medprism.models import NetworkConfig, Prism
from tests.methods.batches import batch

NAMES = ("t1n", "t1c", "t2w")
ANCHORS = ("running", "mean", "modality", "weighted", "normal")
MIXED = [[True, False, True], [True, True, True], [False, True, False], [True, True, False]]


def network(prior: str = "token", modalities: int = 3, seed: int = 0) -> Prism:
    torch.manual_seed(seed)
    return Prism(NetworkConfig(width=4, levels=3, prior=prior), modalities, (16, 16, 16))


def objective(config: PUIRConfig, net: Prism, names: tuple[str, ...] = NAMES) -> PUIR:
    torch.manual_seed(1)
    return PUIR(config, net.backbone.channels[-1], names, seed=7)


def losses_and_gradients(config: PUIRConfig, data, net: Prism) -> tuple[dict[str, float], list[torch.Tensor]]:
    net.zero_grad()
    method = objective(config, net)
    losses = method.losses(net, data, epoch=3, backward=torch.Tensor.backward)
    return {k: float(v) for k, v in losses.items()}, [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("prior", ["channel", "token", "none"])
def test_sequential_and_batched_schedules_are_equal(prior):
    data, net = batch(MIXED), network(prior)
    a, grads_a = losses_and_gradients(PUIRConfig(schedule="batched"), data, net)
    b, grads_b = losses_and_gradients(PUIRConfig(schedule="sequential"), data, net)
    assert a == pytest.approx(b, rel=1e-5)
    assert set(a) == {"loss", *TERMS}
    for one, other in zip(grads_a, grads_b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_content_of_absent_scans_changes_nothing(anchor):
    net, config = network(), PUIRConfig(anchor=anchor, anchor_modality="t1n")
    zero, grads_zero = losses_and_gradients(config, batch(MIXED, absent=0.0), net)
    nan, grads_nan = losses_and_gradients(config, batch(MIXED, absent=math.nan), net)
    assert zero == nan
    assert all(math.isfinite(value) for value in nan.values())
    assert all(torch.equal(a, b) for a, b in zip(grads_zero, grads_nan, strict=True))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_order_of_modalities_is_irrelevant(anchor):
    """Permuting modalities, with the stem and the head permuted alike, gives the same losses."""
    net, permutation = network(), [2, 0, 1]
    config = PUIRConfig(anchor=anchor, anchor_modality="t1c")
    data = batch(MIXED)
    straight = objective(config, net).losses(net, data, epoch=0)
    turned = network()
    turned.backbone.head.weight.data = turned.backbone.head.weight.data[permutation]
    turned.backbone.head.bias.data = turned.backbone.head.bias.data[permutation]
    data = replace(
        data,
        images=data.images[:, permutation],
        foreground=data.foreground[:, permutation],
        present=data.present[:, permutation],
    )
    names = tuple(NAMES[i] for i in permutation)
    permuted = objective(config, turned, names).losses(turned, data, epoch=0)
    for name, value in straight.items():
        torch.testing.assert_close(value, permuted[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("off", TERMS)
def test_each_part_switches_off(off):
    net, data = network(), batch(MIXED)
    losses = objective(replace(PUIRConfig(), **{off: 0.0}), net).losses(net, data, epoch=0)
    assert set(losses) == {"loss", *TERMS} - {off}
    torch.testing.assert_close(losses["loss"], sum(losses[name] for name in TERMS if name != off))


def test_weights_multiply_the_terms():
    net, data = network(), batch(MIXED)
    losses = objective(PUIRConfig(contrastive=0.5, invariance=3.0), net).losses(net, data, epoch=0)
    expected = 0.5 * losses["contrastive"] + 3 * losses["invariance"] + losses["equivariance"] + losses["decomposition"]
    torch.testing.assert_close(losses["loss"], expected)


def test_contrastive_loss_is_never_silently_zero():
    net = network()
    with pytest.raises(UserError, match="at least 2 sub-volumes"):
        objective(PUIRConfig(), net).check_batch(1)
    with pytest.raises(ValueError, match="at least two sub-volumes"):
        objective(PUIRConfig(), net).losses(net, batch([[True, True, True]]), epoch=0)
    objective(PUIRConfig(contrastive=0), net).check_batch(1)
    two = objective(PUIRConfig(), net).losses(net, batch([[True, True, True]] * 2), epoch=0)
    assert two["contrastive"].item() > 1e-3


@pytest.mark.parametrize("anchor", ["mean", "modality", "weighted"])
def test_anchors_of_all_sources_need_them_at_once(anchor):
    config = PUIRConfig(schedule="sequential", anchor=anchor, anchor_modality="t1n")
    with pytest.raises(UserError, match=f"anchor=running or normal .* got {anchor}"):
        objective(config, network())
    objective(replace(config, invariance=0.0), network())


def test_normal_anchor_needs_one_source_at_a_time():
    data, net = batch(MIXED), network()
    a, grads_a = losses_and_gradients(PUIRConfig(schedule="batched", anchor="normal"), data, net)
    b, grads_b = losses_and_gradients(PUIRConfig(schedule="sequential", anchor="normal"), data, net)
    assert a == pytest.approx(b, rel=1e-5)
    for one, other in zip(grads_a, grads_b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("anchor", ["mean", "modality", "weighted", "normal"])
def test_invariance_is_the_alignment_of_x_h(anchor):
    """All sources of a sub-volume by the one module that serves every method, in PUIR the mean over pairs."""
    net, data = network(), batch(MIXED)
    method = objective(PUIRConfig(anchor=anchor, anchor_modality="t1n"), net)
    if anchor == "weighted":
        method.alignment.weights.data = torch.tensor([0.5, 0.25, 1.5])
    found = method.losses(net, data, epoch=0)
    views = method.views(data, epoch=0)
    x_h = torch.full((4, 3, 16, 4, 4, 4), math.nan)
    x_h[data.present] = net(views.first, views.source)[1]
    torch.testing.assert_close(found["invariance"], method.alignment(x_h, data.present))
    found["loss"].backward()
    trained = dict(method.named_parameters())
    assert ("alignment.weights" in trained) == (anchor == "weighted")
    assert all(p.grad is not None for p in trained.values())
    if anchor == "weighted":
        assert method.alignment.weights.grad.abs().sum() > 0


def test_the_anchors_weights_are_there_only_if_they_are_used():
    for config in (PUIRConfig(), PUIRConfig(anchor="weighted", anchor_modality="t1n", invariance=0.0)):
        assert objective(config, network()).alignment is None


@pytest.mark.parametrize("anchor", ["modality", "weighted"])
def test_an_anchor_of_one_modality_must_name_one_of_them(anchor):
    with pytest.raises(UserError, match=r"expected a modality for puir\.anchor_modality"):
        PUIRConfig(anchor=anchor)
    with pytest.raises(UserError, match="expected one of t1n t1c t2w for the anchor's modality, got pet"):
        objective(PUIRConfig(anchor=anchor, anchor_modality="pet"), network())


def test_views_are_functions_of_the_sample_not_of_the_batch():
    """Without swapped boxes, a sub-volume's views are the same whatever is beside it."""
    config = PUIRConfig(corruption=Corruption(swap=0.0))
    method, data = objective(config, network()), batch(MIXED)
    together = method.views(data, epoch=2)
    alone = replace(
        data,
        images=data.images[1:2],
        foreground=data.foreground[1:2],
        present=data.present[1:2],
        index=data.index[1:2],
    )
    single = method.views(alone, epoch=2)
    rows = together.owner == 1
    assert torch.equal(together.first[rows], single.first)
    assert torch.equal(together.order[rows], single.order)
    assert not torch.equal(together.first, method.views(data, epoch=3).first)


def test_decomposition_against_its_formula():
    data = batch([[True, False, True]])
    images = torch.randn(2, 3, 16, 16, 16)
    expected = []
    for image, source in zip(images, (0, 2), strict=True):
        each = []
        for m in (0, 2):
            error = (image[m] - data.images[0, m]) ** 2
            inside = data.foreground[0, m] | data.foreground[0, source]
            each.append(10 * error[inside].mean() + error.mean())
        expected.append(torch.stack(each).mean())
    owner = torch.tensor([0, 0])
    torch.testing.assert_close(decomposition(images, data, owner, torch.tensor([0, 2]), 10.0), torch.stack(expected))


def test_equivariance_reads_the_feature_before_the_prior():
    """Its gradient reaches the encoder and not the prior (appendix E)."""
    net = network()
    config = PUIRConfig(contrastive=0, decomposition=0, invariance=0)
    objective(config, net).losses(net, batch(MIXED), epoch=0)["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in net.prior.parameters())
    assert net.backbone.stem.weight.grad.abs().sum() > 0


def test_invariance_reads_the_feature_behind_the_prior():
    net = network()
    config = PUIRConfig(contrastive=0, decomposition=0, equivariance=0)
    objective(config, net).losses(net, batch(MIXED), epoch=0)["loss"].backward()
    assert net.prior.retrieve.prior.grad.abs().sum() > 0


def test_equivariance_is_cross_entropy_of_the_drawn_turns():
    net = network()
    method = objective(PUIRConfig(contrastive=0, decomposition=0, invariance=0, rotations="cube"), net)
    data = batch(MIXED)
    views = method.views(data, epoch=0)
    z = net.encode(views.first, views.source)[-1].mean(dim=(2, 3, 4))
    expected = F.cross_entropy(method.classify(z), torch.tensor(views.turns))
    torch.testing.assert_close(method.losses(net, data, epoch=0)["equivariance"], expected)
    assert method.classify.out_features == 24
