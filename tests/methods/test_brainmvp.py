"""The objective against closed forms; its schedule; what its gradients reach."""

import math

import pytest
import torch
from torch import nn

from medprism.errors import UserError
from medprism.methods.brainmvp import TERMS, BrainMVP, BrainMVPConfig
from medprism.methods.contrast import ContrastConfig, ModalityContrast
from medprism.methods.masking import Masking
from medprism.models import NetworkConfig, Prism
from medprism.models.atlas import box_grid
from medprism.models.templates import Templates
from tests.methods.batches import batch
from tests.methods.test_copies import MIXED, NAMES, rows_of, turned

GRID = box_grid((-8, -4, -4), (44, 20, 20), 2.0)
MASK = Masking("grid", 0.75, 4)


class Same(nn.Module):
    """A network whose bottleneck is the scan."""

    def bottleneck(self, x, source):
        return x


def config(**changes) -> BrainMVPConfig:
    return BrainMVPConfig(**{"mask": MASK, "contrast_from": 0.0, **changes})


def network(seed: int = 0) -> Prism:
    torch.manual_seed(seed)
    return Prism(NetworkConfig(width=4, levels=3, prior="none"), 3, (16, 16, 16), outputs=0)


def objective(of: BrainMVPConfig, net: Prism, names=NAMES, epochs: int = 10) -> BrainMVP:
    torch.manual_seed(1)
    return BrainMVP(of, net, Templates(names, GRID, seed=1), names, epochs, seed=7)


def restoring_nothing(of: BrainMVPConfig) -> BrainMVP:
    """One whose decoder gives back what it gets."""
    made = objective(of, network())
    made.decoder = nn.Identity()
    return made


def trained(of: BrainMVPConfig, data, net: Prism, names=NAMES):
    net.zero_grad()
    method = objective(of, net, names)
    losses = method.losses(net, data, epoch=3, backward=torch.Tensor.backward)
    return {k: float(v) for k, v in losses.items()}, [*net.parameters(), *method.decoder.parameters()], method.templates


def test_losses_are_the_mean_squared_errors_of_eq_6():
    data, method = batch(MIXED), restoring_nothing(config())
    found = method.losses(Same(), data, epoch=3)
    copies = method.copier(data, data.present, method.templates, 3)
    for name, copy in (("reconstruction", copies.f), ("distillation", copies.g)):
        of_scans = ((copy - copies.clean) ** 2).flatten(1).mean(dim=1)
        expected = torch.stack([of_scans[copies.owner == b].mean() for b in range(4)]).mean()
        torch.testing.assert_close(found[name], expected)
    contrast = ModalityContrast(ContrastConfig(), 1)
    wanted, accuracy = contrast(copies.f, copies.g, data.index[copies.owner], copies.source)
    torch.testing.assert_close(found["contrast"], wanted)
    assert found["contrast_accuracy"] == accuracy
    torch.testing.assert_close(found["loss"], sum(found[name] for name in TERMS))


def test_weights_multiply_the_terms():
    data = batch(MIXED)
    found = restoring_nothing(config(reconstruction=2.0, distillation=10.0, contrast=0.5)).losses(Same(), data, 0)
    wanted = 2 * found["reconstruction"] + 10 * found["distillation"] + 0.5 * found["contrast"]
    torch.testing.assert_close(found["loss"], wanted)


@pytest.mark.parametrize("off", TERMS)
def test_each_part_switches_off(off):
    found = restoring_nothing(config(**{off: 0.0})).losses(Same(), batch(MIXED), epoch=0)
    assert set(found) - {"contrast_accuracy"} == {"loss", *TERMS} - {off}


def test_parts_begin_at_their_share_of_the_training():
    data = batch(MIXED)
    method = restoring_nothing(config(contrast_from=0.6667, cross_modal_from=0.25))
    method_long = objective(config(contrast_from=0.6667, cross_modal_from=0.2007), network(), epochs=1500)
    assert (method_long.contrast_epoch, method_long.cross_modal_epoch) == (1000, 301)
    for epoch in range(10):
        found = method.losses(Same(), data, epoch)
        assert ("contrast" in found) == ("contrast_accuracy" in found) == (epoch >= 7)
        copies = method.copier(data, data.present, method.templates, epoch, crossing=epoch >= 2)
        of_scans = ((copies.f - copies.clean) ** 2).flatten(1).mean(dim=1)
        shares = 1 / data.present.sum(dim=1)[copies.owner] / 4
        torch.testing.assert_close(found["reconstruction"], (of_scans * shares).sum())


def test_one_scan_of_each_sub_volume():
    data, method = batch(MIXED), restoring_nothing(config(each="one", contrast=0.0))
    found = method.losses(Same(), data, epoch=2)
    copies = method.copier(data, method.copier.one(data, 2), method.templates, 2)
    assert copies.owner.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(found["distillation"], ((copies.g - copies.clean) ** 2).mean())


def test_a_batch_is_the_mean_of_its_sub_volumes():
    data, net = batch(MIXED), network()
    method = objective(config(contrast=0.0), net)
    together = method.losses(net, data, epoch=1)
    alone = [method.losses(net, rows_of(data, [row]), epoch=1) for row in range(4)]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in alone]).mean(), rtol=1e-5, atol=1e-6)


def test_absent_content_changes_nothing():
    net = network()
    zero, parameters, volumes = trained(config(), batch(MIXED), net)
    wanted = [p.grad.clone() for p in (*parameters, volumes.volumes)]
    nan, parameters, volumes = trained(config(), batch(MIXED, absent=math.nan), net)
    assert zero == nan
    for parameter, gradient in zip((*parameters, volumes.volumes), wanted, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_order_of_modalities_is_irrelevant():
    data, net, order = batch(MIXED), network(), [2, 0, 1]
    straight, parameters, volumes = trained(config(), data, net)
    wanted = [p.grad.clone() for p in parameters]
    other, parameters, permuted = trained(config(), turned(data, order), net, tuple(NAMES[m] for m in order))
    assert other == pytest.approx(straight, rel=1e-5)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(permuted.volumes.grad, volumes.volumes.grad[order], rtol=1e-4, atol=1e-7)


def test_gradients_reach_the_templates_of_present_modalities_around_the_crops_alone():
    data = batch([[True, False, True], [True, False, False]])
    _, parameters, templates = trained(config(), data, network())
    assert all(p.grad is not None for p in parameters)  # some blocks begin as the identity
    assert sum(bool(p.grad.any()) for p in parameters) > 10
    touched = templates.volumes.grad != 0
    assert [bool(each.any()) for each in touched] == [True, False, True]
    crops = torch.zeros_like(touched[0])
    crops[4:13, 2:11, 2:11] = True  # around voxels 0 to 15 mm, on a grid that begins at −8, −4, −4 mm
    assert not touched[:, ~crops].any()
    assert float(touched[0][crops].float().mean()) > 0.9  # of two masks of 75 %


def test_there_must_be_something_to_contrast():
    net = network()
    with pytest.raises(UserError, match="at least 2 sub-volumes to contrast, got 1; give --patches"):
        objective(config(), net).check_batch(1)
    objective(config(contrast=0.0), net).check_batch(1)
    objective(config(), net).check_batch(2)


def test_scores_are_of_what_is_hidden_in_the_foreground_and_the_same_in_every_epoch():
    data, method = batch([[True, False, True], [True, True, False]]), restoring_nothing(config())
    data.subject = ["s0", "s0"]  # two crops of one
    found = method.scores(Same(), data)
    copies = method.copier(data, data.present, method.templates, "validation")
    expected = []
    for m in (0, 2, 1):
        errors, values = [], []
        for row in (copies.source == m).nonzero()[:, 0]:
            inside = data.foreground[copies.owner[row], m]
            values.append(copies.clean[row, 0][inside])
            for copy, hidden in ((copies.f, copies.hidden_f), (copies.g, copies.hidden_g)):
                errors.append((copy[row, 0] - copies.clean[row, 0])[inside & hidden[row, 0]])
        span = torch.cat(values).max() - torch.cat(values).min()
        expected.append(10 * torch.log10(span**2 / (torch.cat(errors) ** 2).mean()))
    torch.testing.assert_close(found, torch.stack(expected).detach())
    assert torch.equal(method.scores(Same(), data), found)
    data.foreground[:] = False
    assert len(method.scores(Same(), data)) == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reconstruction": -1.0}, r"0 or more for brainmvp\.reconstruction, got -1"),
        ({"reconstruction": 0.0, "distillation": 0.0}, "a positive weight for one of brainmvp.reconstruction"),
        ({"contrast_from": 1.5}, r"a share from 0 to 1 for brainmvp\.contrast_from, got 1\.5"),
        ({"cross_modal_from": -0.1}, r"brainmvp\.cross_modal_from"),
        ({"template_rate": 0.0}, r"a positive number for brainmvp\.template_rate"),
    ],
)
def test_bad_options_are_refused(changes, told):
    with pytest.raises(UserError, match=told):
        BrainMVPConfig(**changes)


def test_templates_are_trained_apart_and_must_be_of_all_modalities():
    method = objective(config(template_rate=20.0), network())
    assert [id(p) for p in method.unregularised] == [id(method.templates.volumes)]
    assert method.unregularised_rate == 20
    with pytest.raises(UserError, match="got none for t2w"):
        BrainMVP(config(), network(), Templates(("t1n", "t1c"), GRID), NAMES, 10, seed=0)
