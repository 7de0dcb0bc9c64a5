"""ACN's pair of networks: which path sees what, the one subset it serves, logits, embeddings, descriptions."""

import json
import math

import pytest
import torch

from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.models.acn import ACN, ACNConfig
from medprism.models.modality_encoder import EncoderConfig

SIDE = 8
NAMES = ("t1n", "t2w", "t2f")
ENCODERS = ["none", "separate", "shared", "joint"]


def network(given=(), encoder="none", *, width=4, classes=4):
    torch.manual_seed(0)
    return ACN(ACNConfig(width, given), EncoderConfig(encoder), 3, classes, (SIDE,) * 3, NAMES).eval()


def scans(batch=2):
    return torch.randn(batch, 3, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def rows(*rows):
    return torch.tensor([[name in row.split() for name in NAMES] for row in rows])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_absent_scans_are_never_read(encoder):
    net = network(encoder=encoder)
    with torch.no_grad():
        assert_no_leak(net.segment, scans())
        assert_no_leak(net.embed, scans())
        assert_no_leak(net.train().segment, scans())


def test_absent_scans_are_never_read_with_one_fixed_subset():
    net, present = network(("t2f", "t1n")), rows("t1n t2f")
    with torch.no_grad():
        outputs = []
        for filling in (0.0, math.nan):
            images = scans(1)
            images[:, 1] = filling
            outputs.append(net.segment(images, present))
    assert outputs[0].isfinite().all()
    assert torch.equal(*outputs)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_are_finite_and_do_not_see_what_is_absent(encoder):
    grads, present, given = [], rows("t1n t2w", "t2f"), rows("t2w", "t2f")
    for filling in (0.0, math.nan):
        net, images = network(encoder=encoder), scans()
        images[~present] = filling
        paths = net(images, present, given)
        sum(made.square().mean() for made in (paths.full, paths.incomplete, paths.encoded)).backward()
        grads.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert all(grad is not None and grad.isfinite().all() for grad in grads[0].values())
    assert all(torch.equal(grad, grads[1][name]) for name, grad in grads[0].items())


@pytest.mark.parametrize("given", [(), ("t2w",)])
def test_segment_is_the_incomplete_path_and_the_full_one_is_never_run(given):
    net = network(given)
    present = net.only(torch.ones(2, 3, dtype=torch.bool))
    with torch.no_grad():
        expected = net(scans(), torch.ones_like(present), present).incomplete
        for parameter in net.full.parameters():
            parameter.fill_(math.nan)
        assert torch.equal(net.segment(scans(), present), expected)


def test_each_path_sees_its_own_scans():
    """The full path all that there is, the incomplete path the given ones of it."""
    net, present, given = network(), rows("t1n t2w", "t1n t2w t2f"), rows("t1n", "t2w t2f")
    with torch.no_grad():
        paths, images = net(scans(), present, given), scans()
        zeroed = torch.where(present[:, :, None, None, None], images, 0.0)
        assert torch.equal(paths.encoded[:, :, 0], zeroed)
        torch.testing.assert_close(paths.full[:, 1:], net.full.decode(net.full.encode(zeroed)))
        torch.testing.assert_close(paths.full_z, net.full.encode(zeroed)[-1])
        torch.testing.assert_close(paths.incomplete, net.segment(images, given))
        moved = scans()
        moved[0, 1] += 1  # present, but not given to the first
        changed = net(moved, present, given)
    assert torch.equal(changed.incomplete, paths.incomplete)
    assert not torch.equal(changed.full[0], paths.full[0])


def test_dropped_channels_of_the_bottlenecks():
    net, given = network(), rows("t1n", "t2w t2f")
    everything, channels = torch.ones_like(given), net.channels
    ones, none = torch.ones(2, channels), torch.zeros(2, channels)
    with torch.no_grad():
        plain, same = net(scans(), everything, given), net(scans(), everything, given, (ones, ones))
        full, incomplete = net(scans(), everything, given, (none, ones)), net(scans(), everything, given, (ones, none))
    assert torch.equal(plain.full, same.full)
    assert torch.equal(plain.incomplete, same.incomplete)
    assert torch.equal(full.full_z, plain.full_z)
    assert torch.equal(full.incomplete, plain.incomplete)
    assert not torch.equal(full.full, plain.full)
    assert torch.equal(incomplete.full, plain.full)
    assert not torch.equal(incomplete.incomplete, plain.incomplete)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_argmax_is_sigmoids_cut_at_one_half(classes):
    net = network(classes=classes)
    with torch.no_grad():
        logits = 10 * net.segment(scans(), rows("t1n t2w", "t2f"))
    assert logits.shape == (2, classes, SIDE, SIDE, SIDE)
    found, sigmoids = logits.argmax(dim=1), logits[:, 1:].sigmoid()
    best, which = sigmoids.max(dim=1)
    assert torch.equal(found, torch.where(best > 0.5, which + 1, 0))
    assert len(found.unique()) > 1


@pytest.mark.parametrize("present", ["t1n", "t1n t2w t2f", "t2w t2f"])
def test_a_network_of_one_subset_refuses_others(present):
    net = network(("t2f", "t1n"))
    with pytest.raises(UserError, match=rf"expected t1n \+ t2f, the one subset .*, got {present.replace(' ', '.*')};"):
        net.segment(scans(), rows("t1n t2f", present))
    with pytest.raises(ValueError, match="at least one present"):
        net.segment(scans(), rows("t1n t2f", ""))


def test_whom_a_network_serves():
    present = rows("t1n t2w t2f", "t1n t2f", "t1n", "t2w")
    assert network().serves(present).all()
    assert torch.equal(network().only(present), present)
    fixed = network(("t2f", "t1n"))
    assert fixed.serves(present).tolist() == [True, True, False, False]
    assert torch.equal(fixed.only(present), rows("t1n t2f", "t1n t2f", "t1n", ""))


def test_embeddings_are_of_one_scan_alone():
    net, present = network(), rows("t1n t2w", "t2f")
    with torch.no_grad():
        pooled = net.embed(scans(), present)
        assert pooled.shape == (2, 3, net.channels)
        assert not pooled[~present].any()
        alone = torch.zeros_like(scans())[:1]
        alone[0, 1] = scans()[0, 1]
        torch.testing.assert_close(pooled[0, 1], net.incomplete.encode(alone)[-1].mean(dim=(2, 3, 4))[0])
        of_fixed = network(("t2w",)).embed(scans(), present)
        assert of_fixed.any(dim=2).tolist() == [[False, True, False], [False, False, False]]


@pytest.mark.parametrize("given", [(), ("t2f", "t1n")])
@pytest.mark.parametrize("encoder", ["none", "shared"])
def test_a_description_makes_the_network_again(given, encoder):
    net = network(given, encoder)
    told = json.loads(json.dumps(net.architecture))
    assert told == net.architecture
    again = ACN(
        ACNConfig(**told["acn"]),
        EncoderConfig(**told["alignment"]),
        told["modalities"],
        told["classes"],
        tuple(told["patch_size"]),
        told["names"],
    )
    assert again.architecture == net.architecture
    again.load_state_dict(net.state_dict())
    assert again.divisor == 8
    assert again.patch_size == (SIDE,) * 3


def test_the_order_of_the_given_scans_does_not_matter():
    one, other = network(("t2f", "t1n")), network(("t1n", "t2f"))
    with torch.no_grad():
        present = rows("t1n t2f", "t1n t2f")
        assert torch.equal(one.segment(scans(), present), other.segment(scans(), present))
    assert network(("FLAIR", "T1")).places == one.places == [0, 2]


@pytest.mark.parametrize("given", [("ct",), ("t1n", "t1n"), ("t1n", "T1")])
def test_subsets_that_cannot_be(given):
    with pytest.raises(UserError, match=r"modalities out of t1n t2w t2f, each once, for acn\.given"):
        network(given)


def test_settings_that_cannot_be():
    with pytest.raises(UserError, match="multiples of 8"):
        ACN(ACNConfig(4), EncoderConfig(), 3, 4, (16, 16, 12))
    with pytest.raises(UserError, match="does not leak"):
        ACN(ACNConfig(4), EncoderConfig("joint", leaks=True), 3, 4, (16, 16, 16))
    with pytest.raises(UserError, match=r"acn\.width"):
        ACNConfig(width=0)
    assert ACN(ACNConfig(4), EncoderConfig(), 3, 4, (16, 16, 16)).places == [0, 1, 2]
