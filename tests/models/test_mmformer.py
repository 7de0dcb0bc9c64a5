"""mmFormer: published sizes, any M, K and crop, absent scans, what is fused, the layout of its tokens, the folder."""

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.models import build
from medprism.models.folder import load_model, save_model
from medprism.models.mmformer import MmFormer, MmFormerConfig
from medprism.models.modality_encoder import EncoderConfig
from tests.inference.tiny import segmentation_card

SMALL = {"width": 4, "dim": 16, "heads": 2, "mlp": 24}
SIZE = (32, 32, 16)  # four tokens
KINDS = ("none", "separate", "shared", "joint")
RELEASED = {"reference_layout": True, "mask_tokens": False}


def network(kind="none", *, modalities=3, classes=4, size=SIZE, leaks=False, **config):
    """A network with random weights, places included."""
    torch.manual_seed(0)
    shape = MmFormerConfig(**{**SMALL, **config})
    made = MmFormer(shape, EncoderConfig(kind, leaks), modalities, classes, size)
    with torch.no_grad():
        made.places.table.copy_(torch.randn(made.places.table.shape))
    return made.eval()


def scans(batch=3, modalities=3, size=SIZE):
    return torch.randn(batch, modalities, *size, generator=torch.Generator().manual_seed(1))


def some():
    """Subjects with two, one and all scans."""
    return torch.tensor([[True, True, False], [False, True, False], [True, True, True]])


def close(one, other):
    """Equal, but for what the order of sums in float32 becomes behind many normalisations."""
    torch.testing.assert_close(one, other, rtol=0, atol=5e-3)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_as_many_as_published():
    """All but the convolutions that the released code makes and never calls: one of 512 to 128 a modality."""
    with torch.device("meta"):
        net = MmFormer(MmFormerConfig(), EncoderConfig(), 4, 4, (128,) * 3)
    unused = 4 * (512 * 128 + 128)
    assert count(net) + unused == 36_654_416  # 36.65 M
    assert all(count(encoder) == 1_473_216 for encoder in net.encoders)
    assert all(count(intra) == 5_250_048 for intra in net.intra)
    parts = {name: count(part) for name, part in net.named_children()}
    assert parts == {
        "latents": 0,
        "encoders": 4 * 1_473_216,
        "tokens": 4 * (128 * 512 + 512),
        "places": 4 * 512 * 8**3,
        "intra": 4 * 5_250_048,
        "inter": 5_250_048,
        "inter_out": 1_049_088,
        "fused": 1_293_444,
        "separate": 593_356,
    }


@pytest.mark.parametrize(
    ("modalities", "classes", "size"), [(4, 4, (32, 32, 32)), (2, 5, (16, 32, 48)), (1, 2, (16, 16, 16))]
)
def test_shapes_level_by_level(modalities, classes, size):
    net = network(modalities=modalities, classes=classes, size=size)
    images, given = scans(2, modalities, size), torch.ones(2, modalities, dtype=torch.bool)
    with torch.no_grad():
        features = net.encode(net.latents(images, given), given)
        made, levels = net(images, given, given), net.fuse(features, given)
    sides = [tuple(side >> level for side in size) for level in range(5)]
    assert [tuple(f.shape) for f in features] == [(2, modalities, 4 << n, *s) for n, s in enumerate(sides)]
    assert [tuple(f.shape) for f in levels] == [(2, 4 << n, *s) for n, s in enumerate(sides)]
    assert [tuple(f.shape) for f in made.logits] == [(2, classes, *s) for s in sides]
    assert made.separate.shape == (2 * modalities, classes, *size)
    assert made.z.shape == (2, modalities, 1, *size)
    assert net.embed(images, given).shape == (2, modalities, 64)


def test_crops_of_other_sizes_than_in_training():
    net, given = network(), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        assert net.segment(scans(1, size=(32, 16, 48)), given).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "modalities", "config"),
    [*((kind, 2, {}) for kind in KINDS), ("none", 2, RELEASED), ("none", 2, {"depth": 2})],
)
def test_absent_scans_are_never_read(kind, modalities, config):
    net = network(kind, modalities=modalities, **config)
    with torch.no_grad():
        assert_no_leak(net.segment, scans(2, modalities))
        assert_no_leak(net.embed, scans(2, modalities))


def test_the_joint_encoder_with_leaks_is_found_out():
    net = network("joint", leaks=True, modalities=2)
    with torch.no_grad(), pytest.raises(AssertionError):
        assert_no_leak(net.segment, scans(1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_training_does_not_read_what_is_absent(kind):
    given, made = some() & torch.tensor([True, True, False]), []
    for filling in (0.0, math.nan):
        net, images = network(kind, dropout=0.0).train(), scans()
        images[~some()] = filling
        out = net(images, some(), given)
        parts = [*out.logits, out.separate, out.z]
        sum(part.square().mean() for part in parts).backward()
        made.append((parts, {name: parameter.grad for name, parameter in net.named_parameters()}))
    (parts, grads), (others, more) = made
    assert all(torch.equal(one, other) for one, other in zip(parts, others, strict=True))
    # The third modality is encoded where it is present, but never given, so its tokens and transformer have no part.
    idle = {name for name, grad in grads.items() if grad is None}
    assert idle == {name for name in grads if name.startswith(("tokens.2.", "intra.2."))}
    assert all(grads[name].isfinite().all() and torch.equal(grads[name], more[name]) for name in grads.keys() - idle)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_path_sees_what_is_given_and_the_separate_decoder_what_is_present(kind):
    net, images, present = network(kind), scans(), torch.ones(3, 3, dtype=torch.bool)
    with torch.no_grad():
        before = net(images, present, some())
        close(before.logits[0], net.segment(images, some()))
        images[0, 2] = torch.randn(SIZE)  # present, but not given
        after = net(images, present, some())
    assert all(torch.equal(one, other) for one, other in zip(before.logits, after.logits, strict=True))
    changed = [not torch.equal(one, other) for one, other in zip(before.separate, after.separate, strict=True)]
    alone = (after.owner == 0) & (after.source == 2)
    if kind == "joint":  # where each latent holds something of all scans that there are
        alone = after.owner == 0
    assert torch.equal(torch.tensor(changed), alone)


def test_what_leaks_is_encoded_once():
    """The convolution sees all; only the features of what is not given are left out."""
    net, images = network("joint", leaks=True), scans()
    with torch.no_grad():
        made = net(images, torch.ones_like(some()), some())
        close(made.logits[0], net.segment(images, some()))


def test_separate_predictions_are_of_one_scan_each():
    net, images = network(), scans()
    with torch.no_grad():
        made = net(images, some(), some())
        assert torch.equal(torch.stack([made.owner, made.source], dim=1), some().nonzero())
        for row, owner, source in zip(made.separate, made.owner, made.source, strict=True):
            features = net.encoders[source](images[owner, source][None, None])
            close(net.separate(features)[0], row)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_subjects_one_by_one(kind):
    net, images = network(kind), scans()
    with torch.no_grad():
        whole = net.segment(images, some())
        for row in range(3):
            alone = net.segment(images[row : row + 1], some()[row : row + 1])
            close(whole[row : row + 1], alone)


def test_pooled_features_are_of_each_scan_by_itself():
    net = network()
    with torch.no_grad():
        pooled = net.embed(scans(), some())
        alone = net.encoders[1](scans()[1:2, 1:2])[-1].mean(dim=(2, 3, 4))
    close(pooled[1, 1], alone[0])
    assert not pooled[~some()].any()


class Passed(nn.Module):
    """Gives what it gets first."""

    def forward(self, x, *_):
        return x


def bare(**config):
    """A network whose tokens are the coarsest features, which pass through it as they are."""
    net = network(dim=64, **config)
    net.tokens, net.intra = nn.ModuleList([Passed()] * 3), nn.ModuleList([Passed()] * 3)
    net.inter, net.inter_out = Passed(), Passed()
    return net


def coarsest(given, grid=(2, 3, 4)):
    feature = torch.randn(len(given), 3, 64, *grid)
    return feature.masked_fill(~given[:, :, None, None, None, None], 0.0)


def test_each_voxel_gets_its_own_tokens():
    feature = coarsest(some())
    assert torch.equal(bare()._attended(feature, some()), feature.flatten(1, 2))


def test_the_released_layout_gives_a_voxel_consecutive_tokens_of_one_modality():
    given = torch.ones(1, 3, dtype=torch.bool)
    feature = coarsest(given, grid=(3, 2, 4))
    out = bare(reference_layout=True)._attended(feature, given)
    for m in range(3):  # the first axis is cut into one slab a modality
        tokens = feature[0, m].flatten(1).T  # 24 places of 64 channels
        for voxel in range(8):
            assert torch.equal(out[0, :, m].flatten(1)[:, voxel], tokens[3 * voxel : 3 * voxel + 3].flatten())


@pytest.mark.parametrize("masks", [True, False])
def test_tokens_of_absent_scans_are_kept_out_of_the_attention(masks):
    net, given = network(mask_tokens=masks), torch.tensor([[True, True, False]])
    with torch.no_grad():
        before = net.segment(scans(1), given)
        net.places.table[2] += 1  # of a modality that is not given
        assert torch.equal(net.segment(scans(1), given), before) == masks


def test_absent_scans_are_zero_at_every_fusion():
    net, seen = network(), []
    for part in (*net.fused.fusions[:4], net.inter_out):
        part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net.segment(scans(), some())
    for feature in seen:
        parts = feature.unflatten(1, (3, -1))
        assert not parts[~some()].any()
        assert parts[some()].flatten(1).any(dim=1).all()


def test_the_order_of_modalities_does_not_matter():
    """With the parameters of a modality where the modality is, but for those that see all at once."""
    net, images, order = bare(), scans(), [2, 0, 1]
    with torch.no_grad():
        out = net.fuse(net.encode(images[:, :, None], some()), some())
        net.encoders = nn.ModuleList(net.encoders[m] for m in order)
        for fusion in net.fused.fusions:
            weight = fusion[0].weight
            weight.copy_(weight.unflatten(1, (3, -1))[:, order].flatten(1, 2).clone())
        again = net.fuse(net.encode(images[:, order, None], some()[:, order]), some()[:, order])
    for one, other in zip(out, again, strict=True):
        close(one, other)


def test_a_single_token_is_warned_of(caplog):
    """Normalised over one voxel, all that the transformers say is zero."""
    net, given = network(size=(16, 16, 16)), torch.tensor([[True, True, False]])
    assert "one token" in caplog.text
    with torch.no_grad():
        before = net.segment(scans(1, size=(16, 16, 16)), given)
        net.inter_out.weight += 1
        assert torch.equal(net.segment(scans(1, size=(16, 16, 16)), given), before)
    caplog.clear()
    network()
    assert not caplog.text


def test_a_subject_without_scans_is_refused():
    with pytest.raises(ValueError, match="at least one present"):
        network().segment(scans(2), torch.tensor([[True] * 3, [False] * 3]))


@pytest.mark.parametrize("size", [(24, 16, 16), (16, 16, 8)])
def test_patches_that_do_not_fit_are_refused(size):
    with pytest.raises(UserError, match="multiples of 16 with mmformer"):
        network(size=size)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 0}, r"1 or more for mmformer\.width"),
        ({"dim": 12, "heads": 8}, r"multiple of heads \(8\) for mmformer\.dim, got 12"),
        ({"dropout": 1.0}, r"0 to below 1 for mmformer\.dropout"),
    ],
)
def test_options_that_cannot_be(wrong, told):
    with pytest.raises(UserError, match=told):
        MmFormerConfig(**wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_folder_gives_the_very_network_back(tmp_path, kind):
    net = network(kind, reference_layout=True)
    told = {"architecture": net.architecture, "patch_size": list(SIZE)}
    again, card = load_model(save_model(tmp_path / "model", net, segmentation_card(**told)))
    assert isinstance(again, MmFormer)
    assert card["architecture"]["mmformer"] == asdict(net.config)
    with torch.no_grad():
        assert torch.equal(again.segment(scans(), some()), net.segment(scans(), some()))


def test_an_architecture_of_another_version_is_refused():
    architecture = network().architecture
    with pytest.raises(UserError, match="architecture written by this version"):
        build({**architecture, "mmformer": {"colour": 1}})
