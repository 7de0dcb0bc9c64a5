"""Public checkpoints by the command: what is written, what is said, that fine-tuning takes it, what is refused."""

import argparse
import io
import json
import pickle

import numpy as np
import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import nn

from medprism.cli import main
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.import_weights import import_weights, read_checkpoint
from medprism.models import NetworkConfig
from medprism.models.folder import load_card, load_model, person_digests
from medprism.models.residual_unet import ResidualUNet
from medprism.models.segmenter import Segmenter, SegmenterConfig
from medprism.models.uniformer import UniFormer
from medprism.training.card import encoder_names
from medprism.training.start import Start
from tests.models.releases import PUIRModules, brainmvp, brainmvp_unet, puir, randomised, swinunetr_ssl
from tests.test_bad_input import MODALITIES, write_scans


def saved(path, state, **beside):
    """As the authors of BrainMVP save: on several processes, scores and optimiser beside."""
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    beside = {"current_epoch": 3, "val_best": np.float64(0.5), "args": argparse.Namespace(lr=1e-3), **beside}
    torch.save({"state_dict": state, **beside}, path)
    return path


def weights_of(place):
    network, card = load_model(place)
    return network.state_dict(), card


@pytest.fixture(scope="module")
def uniformer(tmp_path_factory):
    network = randomised(UniFormer(1, 1, width=4, norm="batch"))
    return saved(tmp_path_factory.mktemp("release") / "model_fix_save.pt", brainmvp(network))


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    network = randomised(ResidualUNet(1, 1, width=4))
    return saved(tmp_path_factory.mktemp("release") / "unet.pt", brainmvp_unet(network))


def test_a_start_from_brainmvp(tmp_path, uniformer, capsys):
    (tmp_path / "persons.txt").write_text("a\n\nb \n")
    words = ["--modalities", "T1,FLAIR", "--patch-size", "32,32,32", "--persons", str(tmp_path / "persons.txt")]
    assert main(["import-weights", str(uniformer), "--from", "brainmvp", "--out", str(tmp_path / "start"), *words]) == 0
    told = capsys.readouterr().out
    assert "encoder: 329 matched (100.0 %), 0 missing, 0 of another shape\n" in told
    assert "other parts: 16 matched, 6 start fresh (backbone.fine.0, backbone.fine.1, backbone.head.weight" in told
    assert (
        "not taken: 7 of the checkpoint (decoder.proj1.proj, decoder.proj1.norm, decoder.out_1.conv, rep_templ" in told
    )
    state, card = weights_of(tmp_path / "start")
    theirs = torch.load(uniformer, weights_only=False)["state_dict"]
    for name in ("stages.1.4.norm2.running_var", "stages.2.3.attn.qkv.weight", "norm.num_batches_tracked"):
        stage, place, *rest = name.removeprefix("stages.").split(".")
        old = f"blocks{int(stage) + 1}.{int(place) - 1}.{'.'.join(rest)}" if name.startswith("stages") else name
        assert torch.equal(state[f"backbone.{name}"], theirs[f"module.encoder.uniformer.{old}"])
    assert (card["task"], card["modalities"], card["spacing"], card["patch_size"]) == (
        "start",
        ["t1n", "t2f"],
        None,
        [32, 32, 32],
    )
    assert card["training_persons"] == person_digests(["a", "b"])
    assert card["config"]["imported_from"] == "brainmvp"
    assert "BrainMVP" in card["citation"]
    assert set(card["encoder_keys"]) <= set(state)
    assert main(["info", str(tmp_path / "start")]) == 0


def test_it_says_the_same_twice_and_replaces_only_by_force(tmp_path, uniformer):
    options = {"origin": "brainmvp", "patch_size": (32, 32, 32), "modalities": ["t1n"]}
    first = import_weights(uniformer, out=tmp_path / "a", **options)
    second = import_weights(uniformer, out=tmp_path / "b", **options)
    assert load_card(first)["sha256"] == load_card(second)["sha256"]
    with pytest.raises(UserError, match=r"expected no model in .*a yet.*--force"):
        import_weights(uniformer, out=first, **options)
    import_weights(uniformer, out=first, **options, seed=1, force=True)
    assert load_card(first)["sha256"] != load_card(second)["sha256"]


def test_running_statistics_go_along_into_a_segmenter(tmp_path, uniformer):
    place = import_weights(
        uniformer, origin="brainmvp", out=tmp_path / "start", patch_size=(32, 32, 32), modalities=["t1n", "t2w"]
    )
    state, _ = weights_of(place)
    shape = NetworkConfig("uniformer", width=4, levels=5, prior="none", norm="batch")
    segmenter = Segmenter(shape, SegmenterConfig(), 2, 3, (32, 32, 32))
    Start(shape, (32, 32, 32), state, "encoder").fill(segmenter)
    names = encoder_names(segmenter)
    assert any(name.endswith("running_mean") for name in names)
    own = segmenter.state_dict()
    assert all(torch.equal(own[name], state[name.removeprefix("prism.")]) for name in names)


@pytest.mark.parametrize("origin", ["swinunetr-ssl", "puir"])
def test_the_other_releases(tmp_path, origin):
    channels = 1 if origin == "swinunetr-ssl" else 4
    network = randomised(MonaiSwinUNETR(in_channels=channels, out_channels=channels, feature_size=12))
    state = swinunetr_ssl(network) if channels == 1 else puir(network, PUIRModules(192))
    file = saved(tmp_path / "checkpoint.pt", state, best_acc=np.float32(1))
    made, card = weights_of(import_weights(file, origin=origin, out=tmp_path / "start"))
    assert card["modalities"] == (["ct"] if channels == 1 else ["t1n", "t1c", "t2w", "t2f"])
    old = "layers3.0.blocks.1.attn.qkv.weight"
    assert torch.equal(made[f"backbone.net.swinViT.{old}"], network.swinViT.state_dict()[old])
    assert ("prior.retrieve.prior" in made) == (origin == "puir")
    if origin == "puir":
        with pytest.raises(UserError, match=r"expected 96,96,96 for patch_size with puir"):
            import_weights(file, origin=origin, out=tmp_path / "other", patch_size=(64, 64, 64))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    write_scans(root / "scans")
    cohort = str(root / "scans/cohort.json")
    divide = ["--splits", "random", "--fractions", "0.5,0.25,0.25"]
    assert main(["inspect", str(root / "scans"), "--out", cohort, "--name", "sound", *divide]) == 0
    assert main(["prepare", cohort, "--out", str(root / "cache"), "--spacing", "2,2,2"]) == 0
    return root / "cache"


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_finetuning_takes_it(tmp_path, unet, cache, part):
    start = tmp_path / "start"
    words = ["--data", str(cache), "--patch-size", "8,8,8", "--out", str(start)]
    assert main(["import-weights", str(unet), "--from", "brainmvp", *words]) == 0
    card = load_card(start)
    assert (card["modalities"], card["spacing"]) == (list(MODALITIES), [2, 2, 2])
    assert card["typical_scales"].keys() == set(MODALITIES)
    words = ["--data", str(cache), "--init", str(start), "--part", part, "--patches.size", "8,8,8", "--epochs", "1"]
    assert main(["finetune", "segment", *words, "--out", str(tmp_path / "run"), "--optimiser.lr", "1e-20"]) == 0
    tuned, card = weights_of(tmp_path / "run")
    assert card["initialised_from"] == load_card(start)["sha256"]
    begun, _ = weights_of(start)
    assert torch.equal(tuned["prism.backbone.blocks.3.1.conv1.weight"], begun["backbone.blocks.3.1.conv1.weight"])


def test_it_is_no_model_to_use(tmp_path, unet, capsys):
    start = import_weights(unet, origin="brainmvp", out=tmp_path / "start", patch_size=(8, 8, 8))
    capsys.readouterr()
    words = ["--image.t1n", "a.nii.gz", "--target", "t2w", "--out", str(tmp_path / "made")]
    assert main(["synthesize", str(start), *words]) == 2
    assert "got one for start" in capsys.readouterr().err


class Evil:
    """A pickle that would run code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit(9)",))


def written(kind, folder, good):
    file = folder / f"{kind}.pt"
    if kind == "truncated":
        file.write_bytes(good.read_bytes()[:-2000])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("no weights at all")
    elif kind == "code":
        torch.save({"state_dict": {"a": Evil()}}, file)
    elif kind == "pickle":
        file.write_bytes(pickle.dumps({"state_dict": [1, 2]}))
    elif kind == "numbers":
        torch.save({"epoch": 3}, file)
    elif kind == "tensor":
        torch.save(torch.zeros(3), file)
    elif kind == "another":
        saved(file, nn.Conv3d(1, 2, 3).state_dict())
    elif kind == "partial":
        state = torch.load(good, weights_only=False)["state_dict"]
        torch.save({name: value for name, value in state.items() if "blocks3" not in name}, file)
    return file


SAYS = {
    "truncated": "could not read",
    "empty": "could not read",
    "text": "could not read",
    "code": "could not read",
    "pickle": "expected a checkpoint",
    "numbers": "expected a checkpoint with weights by name, got dict without",
    "tensor": "expected a checkpoint with weights by name, got Tensor without",
    "another": "its names begin weight, bias",
    "partial": "expected at least 95 %",
    "none": "got nothing at",
}


@pytest.mark.parametrize("kind", SAYS)
def test_what_is_no_such_checkpoint(tmp_path, uniformer, kind, capsys):
    file = written(kind, tmp_path, uniformer)
    before = sorted(tmp_path.rglob("*"))
    assert main(["import-weights", str(file), "--from", "brainmvp", "--out", str(tmp_path / "start")]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert SAYS[kind] in told.err
    assert str(file) in told.err
    assert not told.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "swinunetr-ssl"], "it looks like --from brainmvp"),
        (["--from", "other"], "expected brainmvp, swinunetr-ssl or puir for --from, got other"),
        (["--from", "brainmvp", "--modalities", "t1n,T1"], "expected modalities, each once"),
        (["--from", "brainmvp", "--modalities", "t9"], "t9"),
        (["--from", "brainmvp", "--patch-size", "40,40,40"], "multiples of 16"),
        (
            ["--from", "brainmvp", "--data", "nowhere", "--modalities", "ct"],
            "expected --modalities and --spacing without",
        ),
        (["--from", "brainmvp", "--persons", "nowhere.txt"], "nowhere.txt"),
        ([], "expected --from, got none"),
    ],
)
def test_options_that_cannot_be(tmp_path, uniformer, words, says, capsys):
    assert main(["import-weights", str(uniformer), "--out", str(tmp_path / "start"), *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_bare_weights_and_those_under_model_are_read(tmp_path):
    state = {"module.a": torch.arange(3.0), "b": torch.zeros(1)}
    torch.save(state, tmp_path / "bare.pt")
    torch.save({"model": state, "epoch": 1}, tmp_path / "under.pt")
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(old.getvalue())
    for name in ("bare", "under", "old"):
        read = read_checkpoint(tmp_path / f"{name}.pt")
        assert set(read) == {"a", "b"}
        assert torch.equal(read["a"], torch.arange(3.0))


def test_the_cards_recipe_is_json(tmp_path, unet, cache):
    start = import_weights(unet, origin="brainmvp", out=tmp_path / "start", data=cache, patch_size=(8, 8, 8))
    Start.of(start, "encoder", NetworkConfig(), Cache.open(cache))
    assert json.loads((start / "model.json").read_text())["normalisers"]["t1n"]["kind"] == "zscore"
