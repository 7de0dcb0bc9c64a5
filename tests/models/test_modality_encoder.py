"""The encoders T: what they see, what they weigh, what they start as."""

import math

import pytest
import torch
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.models.modality_encoder import EncoderConfig, ModalityEncoder

KINDS = ("none", "separate", "shared", "joint")


def encoder(kind, modalities=3, leaks=False):
    torch.manual_seed(0)
    return ModalityEncoder(EncoderConfig(kind, leaks), modalities).eval()


def scans(modalities=3, batch=2):
    return torch.randn(batch, modalities, 6, 5, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "modalities", "channels", "weights"),
    [
        ("none", 4, 1, 0),
        ("separate", 4, 1, 4 * 27 + 4),
        ("shared", 4, 4, 4 * 27 + 4),  # as many as separate
        ("joint", 4, 1, 16 * 27 + 4),
        ("separate", 3, 1, 3 * 27 + 3),
        ("shared", 3, 3, 3 * 27 + 3),
        ("joint", 3, 1, 9 * 27 + 3),
    ],
)
def test_channels_and_counts_of_weights(kind, modalities, channels, weights):
    made = encoder(kind, modalities)
    assert made.channels == channels
    assert sum(p.numel() for p in made.parameters()) == weights
    given = torch.ones(2, modalities, dtype=torch.bool)
    assert made(scans(modalities), given).shape == (2, modalities, channels, 6, 5, 4)


def test_each_is_the_convolution_that_it_says():
    images, given = scans(), torch.ones(2, 3, dtype=torch.bool)
    separate, shared, joint = (encoder(kind) for kind in KINDS[1:])
    assert torch.equal(encoder("none")(images, given), images[:, :, None])
    for j in range(3):
        weight, bias = separate.conv.weight[j : j + 1], separate.conv.bias[j : j + 1]
        expected = F.conv3d(images[:, j : j + 1], weight, bias, padding=1)
        torch.testing.assert_close(separate(images, given)[:, j], expected)
        expected = F.conv3d(images[:, j : j + 1], shared.conv.weight, shared.conv.bias, padding=1)
        torch.testing.assert_close(shared(images, given)[:, j], expected)
    expected = F.conv3d(images, joint.conv.weight, joint.conv.bias, padding=1)
    torch.testing.assert_close(joint(images, given)[:, :, 0], expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train", [True, False])
def test_what_is_not_given_is_never_read_and_comes_out_zero(kind, train):
    made = encoder(kind).train(train)
    assert_no_leak(made, scans(batch=3))
    given = torch.tensor([[True, False, True], [False, True, False]])
    z = made(scans(), given)
    assert not z[~given].any()
    assert bool(z[given].flatten(1).any(dim=1).all())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_gradients_are_finite_and_blind_to_what_is_not_given(kind):
    given, found = torch.tensor([[True, False, True], [False, True, False]]), []
    for filling in (0.0, math.nan):
        made, images = encoder(kind), scans()
        images[~given] = filling
        made(images, given).square().sum().backward()
        found.append([p.grad for p in made.parameters()])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*found, strict=True))


def test_the_joint_convolution_with_leaks_shows_what_is_not_given():
    made, images, given = encoder("joint", leaks=True), scans(), torch.tensor([[True, False, True]] * 2)
    other = images.clone()
    other[:, 1] += 1
    assert not torch.equal(made(images, given)[:, 0], made(other, given)[:, 0])
    assert not made(images, given)[:, 1].any()  # nothing comes out in its own place
    whole = torch.ones_like(given)
    assert torch.equal(made(images, whole), encoder("joint")(images, whole))  # else it is the same
    with pytest.raises(AssertionError, match="expected"):
        assert_no_leak(made, images)


@pytest.mark.parametrize("kind", ["none", "separate", "shared"])
def test_leaks_need_the_joint_convolution(kind):
    with pytest.raises(UserError, match="expected encoder=joint with leaks"):
        EncoderConfig(kind, leaks=True)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_modalities_is_irrelevant(kind):
    """With weights of the modality permuted alike."""
    made, turned, turn = encoder(kind), encoder(kind), [2, 0, 1]
    images, given = scans(), torch.tensor([[True, False, True], [True, True, True]])
    if kind in ("separate", "joint"):
        turned.conv.weight.data = made.conv.weight.data[turn]
        turned.conv.bias.data = made.conv.bias.data[turn]
    if kind == "joint":
        turned.conv.weight.data = turned.conv.weight.data[:, turn]
    torch.testing.assert_close(turned(images[:, turn], given[:, turn]), made(images, given)[:, turn])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_z_starts_as_the_scan_plus_a_random_filtering(kind):
    torch.manual_seed(0)
    groups, channels = (3, 3) if kind == "separate" else (1, 1 if kind == "shared" else 3)
    plain = torch.nn.Conv3d(channels, 3, 3, padding=1, groups=groups)
    images, given = scans(), torch.ones(2, 3, dtype=torch.bool)
    one_by_one = images.flatten(0, 1)[:, None] if kind == "shared" else images
    random = plain(one_by_one).unflatten(0, (2, 3)) if kind == "shared" else plain(images)[:, :, None]
    torch.testing.assert_close(encoder(kind)(images, given), images[:, :, None] + random)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_autocast(kind):
    made, images, given = encoder(kind), scans(), torch.tensor([[True, False, True]] * 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = made(images, given)
    torch.testing.assert_close(rounded.float(), made(images, given), rtol=0.05, atol=0.05)
