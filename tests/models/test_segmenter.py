"""The segmenter: subsets, absent content, order, gradients, coarser levels, the model folder, every choice."""

import math
from dataclasses import asdict

import pytest
import torch

from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.models import NetworkConfig, build
from medprism.models.folder import load_model, save_model
from medprism.models.segmenter import Segmenter, SegmenterConfig
from tests.inference.tiny import segmentation_card

SIDE = 16
CHOICES = [
    ({"combine": "fused", "fusion": "gates"}, {}),
    ({"combine": "fused", "fusion": "mean"}, {"source": "tagged", "intensity": 3}),
    ({"combine": "channels"}, {}),
    ({"combine": "channels"}, {"source": "tagged", "prior": "none", "intensity": 3}),
]
BACKBONES = {
    "unet": (NetworkConfig(width=4, levels=3), SIDE),
    "swinunetr": (NetworkConfig("swinunetr", width=12), 64),
}


def network(segmenter=None, shape=None, *, backbone="unet", modalities=3, classes=4):
    """A segmenter with random weights, those that start as zero or identity included."""
    torch.manual_seed(0)
    config, side = BACKBONES[backbone]
    config = NetworkConfig(**{**asdict(config), **(shape or {})})
    made = Segmenter(config, SegmenterConfig(**(segmenter or {})), modalities, classes, (side,) * 3)
    with torch.no_grad():
        for parameter in made.fusion.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return made.eval()


def scans(batch=2, modalities=3, side=SIDE):
    return torch.randn(batch, modalities, side, side, side, generator=torch.Generator().manual_seed(1))


def some():
    """Subjects with two, one and all scans."""
    return torch.tensor([[True, True, False], [False, True, False], [True, True, True]])


@pytest.mark.parametrize(("segmenter", "shape"), CHOICES)
def test_absent_scans_are_never_read(segmenter, shape):
    net = network(segmenter, shape)
    with torch.no_grad():
        assert_no_leak(net.segment, scans())
        assert_no_leak(net.embed, scans())


@pytest.mark.parametrize(("segmenter", "shape"), CHOICES)
def test_gradients_are_finite_and_do_not_see_what_is_absent(segmenter, shape):
    grads = []
    for filling in (0.0, math.nan):
        net, images = network({**segmenter, "deep_supervision": 1}, shape), scans(3)
        images[~some()] = filling
        made = net(images, some())
        sum(logits.square().mean() for logits in made.logits).backward()
        grads.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert all(grad is not None and grad.isfinite().all() for grad in grads[0].values())
    assert all(torch.equal(grad, grads[1][name]) for name, grad in grads[0].items())


@pytest.mark.parametrize(("segmenter", "shape"), CHOICES)
def test_a_batch_equals_its_subjects_one_by_one(segmenter, shape):
    net, images = network(segmenter, shape), scans(3)
    with torch.no_grad():
        whole = net.segment(images, some())
        for row in range(3):
            alone = net.segment(images[row : row + 1], some()[row : row + 1])
            torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["mean", "gates"])
def test_the_order_of_modalities_does_not_matter(fusion):
    """With the parameters of a modality where the modality is; the stem of `repeated` has none."""
    net, order = network({"fusion": fusion}), [2, 0, 1]
    with torch.no_grad():
        out = net.segment(scans(3), some())
        if fusion == "gates":
            for level in range(len(net.fusion.maps)):
                parts = (net.fusion.maps[level], net.fusion.shifts[level], net.fusion.gates[level].weight)
                for part in (*parts, net.fusion.gates[level].bias):
                    part.copy_(part[order].clone())
        torch.testing.assert_close(net.segment(scans(3)[:, order], some()[:, order]), out, rtol=1e-4, atol=1e-5)


def test_channels_of_one_repeated_scan_are_that_scan_fused_by_the_mean():
    """All absent channels are filled by the one that is given, which is how a modality is repeated."""
    fused, stacked = network({"fusion": "mean"}), network({"combine": "channels"})
    stacked.load_state_dict(fused.state_dict())
    alone = torch.tensor([[False, True, False], [True, False, False]])
    with torch.no_grad():
        one, other = fused.segment(scans(), alone), stacked.segment(scans(), alone)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_a_pass_gives():
    net, owner = network({"deep_supervision": 1}), torch.tensor([0, 0, 1, 2, 2, 2])
    with torch.no_grad():
        made = net(scans(3), some())
        assert torch.equal(made.owner, owner)
        assert made.x_h.shape == (6, 16, 4, 4, 4)
        assert torch.equal(made.logits[0], net.segment(scans(3), some()))
        pooled = net.embed(scans(3), some())
        torch.testing.assert_close(pooled[some()], made.x_h.mean(dim=(2, 3, 4)), rtol=1e-4, atol=1e-5)
        assert not pooled[~some()].any()
        assert network({"combine": "channels"})(scans(3), some()).x_h is None


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_coarser_levels_have_half_the_resolution_each(levels):
    net = network({"deep_supervision": levels}, {"levels": 4})
    with torch.no_grad():
        logits = net(scans(1), some()[:1]).logits
    assert [tuple(one.shape) for one in logits] == [(1, 4, *[SIDE // 2**k] * 3) for k in range(levels + 1)]


def test_more_coarser_levels_than_there_are():
    with pytest.raises(UserError, match=r"fewer than 2 coarser levels for segmenter\.deep_supervision, got 2"):
        network({"deep_supervision": 2})
    with pytest.raises(UserError, match="0 or more"):
        SegmenterConfig(deep_supervision=-1)


@pytest.mark.parametrize(("segmenter", "shape"), [*CHOICES, ({"deep_supervision": 1}, {"prior": "token"})])
def test_a_model_folder_gives_the_very_network_back(tmp_path, segmenter, shape):
    net = network(segmenter, shape)
    told = {"architecture": net.architecture, "patch_size": [SIDE] * 3}
    again, card = load_model(save_model(tmp_path / "model", net, segmentation_card(**told)))
    assert isinstance(again, Segmenter)
    assert card["architecture"] == net.architecture
    states = net.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    with torch.no_grad():
        assert torch.equal(again.segment(scans(3), some()), net.segment(scans(3), some()))


def test_an_architecture_of_another_version_is_refused():
    architecture = network().architecture
    with pytest.raises(UserError, match="architecture written by this version"):
        build({**architecture, "segmenter": {"combine": "fused", "colour": 1}})
    without = {key: value for key, value in architecture.items() if key != "classes"}
    with pytest.raises(UserError, match="classes"):
        build(without)


@pytest.mark.parametrize("given", [[[False] * 3], [[True] * 3, [False] * 3]])
def test_a_subject_without_scans_is_refused(given):
    for combine in ("fused", "channels"):
        with pytest.raises(ValueError, match="at least one present"):
            network({"combine": combine}).segment(scans(len(given)), torch.tensor(given))


@pytest.mark.slow
@pytest.mark.parametrize("segmenter", [{"deep_supervision": 1}, {"combine": "channels"}])
def test_the_papers_backbone(segmenter):
    net, images, present = (
        network(segmenter, backbone="swinunetr", modalities=2),
        scans(1, 2, 64),
        torch.tensor([[0, 1]]),
    )
    with torch.no_grad():
        logits = net(images, present.bool()).logits
        images[0, 0] = math.nan
        assert torch.equal(net.segment(images, present.bool()), logits[0])
    sizes = [tuple(one.shape[1:]) for one in logits]
    assert sizes == [(4, 64, 64, 64), (4, 32, 32, 32)][: 1 + segmenter.get("deep_supervision", 0)]
