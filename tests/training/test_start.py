"""Where fine-tuning starts from: what is filled and what stays fresh, and what may not be started from."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from medprism.data.cache import Cache
from medprism.data.intensity import DEFAULT_NORMALISERS
from medprism.errors import UserError
from medprism.models import NetworkConfig
from medprism.models.folder import CARD, WEIGHTS, load_card, load_model, person_digests, save_model, sha256
from medprism.models.prism import Prism
from medprism.models.segmenter import Segmenter, SegmenterConfig
from medprism.training.card import encoder_names, transfer_card
from medprism.training.start import Start
from tests.training.runs import MODALITIES
from tests.training.segmenting import SHAPE, TEST

SWIN = NetworkConfig("swinunetr", width=12)
UNIFORMER = NetworkConfig("uniformer", width=4, levels=4)
UNET3D = NetworkConfig("unet3d", width=4, levels=3)
SIDES = {"unet": (16, 16, 16), "swinunetr": (64, 64, 64), "uniformer": (16, 16, 16), "unet3d": (16, 16, 16)}


@pytest.fixture(scope="module")
def cache(labelled):
    return Cache.open(labelled)


def saved(folder, cache, shape=SHAPE, **card):
    """A model for transfer that was never trained, all of whose weights are random."""
    torch.manual_seed(5)
    network = Prism(shape, len(MODALITIES), SIDES[shape.backbone])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape)
    return save_model(folder, network, {**transfer_card(cache, network, {}, 20.0), **card})


def fresh(start):
    torch.manual_seed(1)
    config = SegmenterConfig(deep_supervision=1)
    return Segmenter(start.network, config, len(MODALITIES), 3, start.patch_size or SIDES[start.network.backbone])


def compared(start, model):
    """Names in a filled segmenter: those that are as in the model, and those that are as they were."""
    network = fresh(start)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start.fill(network)
    theirs = {f"prism.{name}": value for name, value in load_model(model)[0].state_dict().items()}
    after = network.state_dict()
    filled = {name for name, value in theirs.items() if name in after and torch.equal(after[name], value)}
    return network, filled, {name for name, value in after.items() if torch.equal(value, before[name])}


@pytest.mark.parametrize(
    "shape", [SHAPE, replace(SHAPE, source="tagged", prior="token", intensity=4), SWIN, UNIFORMER, UNET3D]
)
def test_the_whole_model_but_its_head(tmp_path, cache, shape):
    model = saved(tmp_path / "model", cache, shape)
    start = Start.of(model, "model", NetworkConfig(), cache)
    assert (start.network, start.patch_size) == (shape, SIDES[shape.backbone])
    assert (start.identity, set(start.seen)) == (load_card(model)["sha256"], set(load_card(model)["training_persons"]))
    network, filled, untouched = compared(start, model)
    own = {name for name in network.state_dict() if name.startswith("prism.")}
    head = {name for name in own if name.startswith(("prism.backbone.head.", "prism.backbone.net.out."))}
    assert len(head) == 2
    assert filled >= own - head
    assert untouched >= head | set(network.state_dict()) - own  # fusion and the heads of coarser levels
    assert not {name for name in untouched & (own - head) if "relative_position_index" not in name}


@pytest.mark.parametrize("shape", [SHAPE, SWIN, UNIFORMER, UNET3D])
def test_the_encoder_alone_in_a_network_without_prior(tmp_path, cache, shape):
    model = saved(tmp_path / "model", cache, shape)
    start = Start.of(model, "encoder", NetworkConfig(), cache)
    assert start.network == replace(shape, prior="none")
    network, filled, untouched = compared(start, model)
    encoder = set(encoder_names(network))
    assert encoder == {f"prism.{name}" for name in load_card(model)["encoder_keys"]}
    assert encoder <= filled
    assert untouched >= set(network.state_dict()) - encoder
    assert not encoder & untouched


def test_encoder_and_decoder_share_nothing(cache):
    network = fresh(Start(SHAPE))
    images, source = torch.randn(1, 1, 16, 16, 16), torch.tensor([0])
    network.prism.bottleneck(images, source).sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == set(encoder_names(network))


def test_nothing_fills_nothing(cache):
    start = Start.of(None, "model", SHAPE, cache)
    assert (start.patch_size, start.identity, start.seen) == (None, None, ())
    network = fresh(start)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start.fill(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_segmenter_is_a_start_too(labelled, segmenter, cache):
    start = Start.of(segmenter, "model", NetworkConfig(), cache)
    network, theirs = fresh(start), load_model(segmenter)[0].state_dict()
    start.fill(network)
    filled = {name for name, value in network.state_dict().items() if torch.equal(value, theirs[name])}
    assert filled >= {name for name in theirs if name.startswith("prism.") and ".head." not in name}


def test_the_shape_may_be_given_again_but_no_other(tmp_path, cache):
    shape = replace(SHAPE, prior="token")
    model = saved(tmp_path / "model", cache, shape)
    assert Start.of(model, "model", shape, cache).network == shape
    with pytest.raises(UserError, match=r"by --network: .*prior channel instead of token; leave --network out"):
        Start.of(model, "model", SHAPE, cache)


def other_normaliser(recipe):
    normalisers = {**recipe.normalisers, "t2w": DEFAULT_NORMALISERS["ct"]}
    return replace(recipe, normalisers=normalisers)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda recipe: replace(recipe, modalities=("t2w", "t1n", "t2f")), "a cache of t1n t2w t2f .*got t2w t1n t2f"),
        (lambda recipe: replace(recipe, spacing=(2.0, 2.0, 3.0)), r"voxels of None mm .*got \[2\.0, 2\.0, 3\.0\]"),
        (other_normaliser, "another normaliser for t2w; prepare"),
    ],
)
def test_scans_prepared_in_another_way_are_refused(tmp_path, cache, change, told):
    model = saved(tmp_path / "model", cache)
    with pytest.raises(UserError, match=told):
        Start.of(model, "model", NetworkConfig(), replace(cache, recipe=change(cache.recipe)))


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_weights_that_have_seen_a_test_person_are_refused(tmp_path, cache, part):
    seen = person_digests([TEST, "s0"])
    model = saved(tmp_path / "model", cache, training_persons=seen)
    with pytest.raises(UserError, match=rf"no person of the test split, got 1 .*\({TEST}\)"):
        Start.of(model, part, NetworkConfig(), cache)
    assert Start.of(saved(tmp_path / "other", cache), part, NetworkConfig(), cache).state


def test_an_encoder_needs_a_model(cache):
    with pytest.raises(UserError, match="expected --init, a model to take the encoder of, got none"):
        Start.of(None, "encoder", SHAPE, cache)


def test_altered_weights_are_refused(tmp_path, cache):
    model = saved(tmp_path / "model", cache)
    content = bytearray((model / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (model / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="altered or cut short"):
        Start.of(model, "model", NetworkConfig(), cache)


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_less_than_95_percent_of_the_part_is_refused_and_changes_nothing(tmp_path, cache, part):
    start = Start.of(saved(tmp_path / "model", cache), part, NetworkConfig(), cache)
    network = fresh(start)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = [name.removeprefix("prism.") for name in encoder_names(network)]
    lacking = {name: value for name, value in start.state.items() if name not in names[: len(names) // 5]}
    with pytest.raises(UserError, match=r"expected at least 95 % .* missing"):
        replace(start, state=lacking).fill(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_card_of_another_version_is_told_in_one_line(tmp_path, cache):
    model = saved(tmp_path / "model", cache)
    card = json.loads((model / CARD).read_text())
    for architecture in ({}, {"patch_size": [16, 16, 16], "network": {"colour": 1}}, {"patch_size": 16, "network": {}}):
        (model / CARD).write_text(json.dumps({**card, "architecture": architecture}))
        with pytest.raises(UserError, match="a model of this version to start from"):
            Start.of(model, "model", NetworkConfig(), cache)


def test_weights_of_another_architecture_are_refused(tmp_path, cache):
    """A card and weights that belong together by their hash, but do not fit."""
    model = saved(tmp_path / "model", cache)
    save_file({"conv.weight": torch.zeros(3)}, model / WEIGHTS)
    card = json.loads((model / CARD).read_text())
    (model / CARD).write_text(json.dumps({**card, "sha256": sha256(model / WEIGHTS)}))
    start = Start.of(model, "model", NetworkConfig(), cache)
    with pytest.raises(UserError, match=r"0 matched \(0\.0 %\)"):
        start.fill(fresh(start))
