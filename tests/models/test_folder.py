import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medprism import models
from medprism.errors import UserError
from medprism.models.folder import (
    find_model,
    load_card,
    load_model,
    load_weights,
    person_digests,
    save_model,
    sha256,
)


class Tiny(nn.Module):
    def __init__(self, width: int = 3, tied: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 4))
        self.head = nn.Linear(width, 4)
        if tied:
            self.head.weight = self.encoder[2].weight


def card(**extra):
    return {
        "architecture": {"network": {"width": 3}},
        "modalities": ["t1n", "t2w"],
        "normalisers": {},
        "typical_scales": {},
        "spacing": None,
        "patch_size": (8, 8, 8),
        **extra,
    }


@pytest.fixture(autouse=True)
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", lambda architecture: Tiny(**architecture["network"]), raising=False)


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "run" / "model", Tiny(), card())


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("tied", [False, True])
def test_save_then_load_is_bit_exact(tmp_path, tied):
    network = Tiny(tied=tied)
    network.encoder(torch.randn(5, 4))  # moves the running statistics
    made = card(architecture={"network": {"width": 3, "tied": tied}})
    loaded, back = load_model(save_model(tmp_path / "m", network, made))
    assert same(network, loaded)
    assert not loaded.training
    assert back["patch_size"] == [8, 8, 8]
    assert back["modalities"] == made["modalities"]
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]


def test_a_run_folder_stands_for_its_model(folder):
    assert find_model(folder.parent) == find_model(folder) == folder
    assert load_card(folder.parent) == load_card(folder)


def test_saving_again_replaces_and_leaves_other_files(folder):
    (folder / "notes.txt").write_text("mine")
    other = Tiny()
    save_model(folder, other, card(cohort="second"))
    loaded, back = load_model(folder)
    assert same(other, loaded)
    assert back["cohort"] == "second"
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_model_whole(folder):
    before = sha256(folder / "model.safetensors")
    with pytest.raises(TypeError):
        save_model(folder, Tiny(), card(citation=object()))
    assert sha256(folder / "model.safetensors") == before
    load_model(folder)
    assert len(list(folder.iterdir())) == 2


def test_numbers_of_numpy_and_torch_become_json_and_nan_null(tmp_path):
    metrics = {
        "psnr": float("nan"),
        "ssim": np.float32(0.5),
        "spacing": np.ones(3),
        "x": torch.ones(2),
        1: float("inf"),
    }
    back = load_card(save_model(tmp_path, Tiny(), card(metrics=metrics)))
    assert back["metrics"] == {"psnr": None, "ssim": 0.5, "spacing": [1, 1, 1], "x": [1, 1], "1": None}


def test_a_card_without_what_inference_needs_is_a_bug_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="patch_size"):
        save_model(tmp_path / "m", Tiny(), {k: v for k, v in card().items() if k != "patch_size"})
    assert not (tmp_path / "m").exists()


def altered(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def rehashed(folder):
    """The hash is renewed, so that only safetensors' own check is left."""
    cut(folder)
    change(folder, sha256=sha256(folder / "model.safetensors"))


def huge_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    change(folder, sha256=sha256(folder / "model.safetensors"))


def other_weights(folder):
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    change(folder, sha256=sha256(folder / "model.safetensors"))


def change(folder, **values):
    text = json.loads((folder / "model.json").read_text())
    text.update(values)
    (folder / "model.json").write_text(json.dumps({k: v for k, v in text.items() if v != "gone"}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (altered, "altered or cut short"),
        (cut, "altered or cut short"),
        (rehashed, "do not fit"),
        (huge_header, "do not fit"),
        (other_weights, "do not fit"),
        (lambda f: (f / "model.json").unlink(), "model.json is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: [p.unlink() for p in f.iterdir()], "expected a model folder"),
        (lambda f: (f / "model.json").write_text("{"), "in JSON"),
        (lambda f: (f / "model.json").write_text("[1]"), "format_version"),
        (lambda f: change(f, format_version=99), "got 99"),
        (lambda f: change(f, normalisers="gone"), "normalisers"),
        (lambda f: change(f, sha256="gone"), "sha256"),
        (lambda f: change(f, architecture={"network": {"depth": 3}}), "cannot build"),
        (lambda f: change(f, architecture={}), "cannot build"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder, harm, message):
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder.parent)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_model(tmp_path / "file", Tiny(), card())


def test_load_weights_fills_only_the_prefix_by_key_map():
    source, target = Tiny(), Tiny()
    head = target.head.weight.clone()
    report = load_weights(target, source.encoder.state_dict(), prefix="encoder.", key_map={"": "encoder."})
    assert report.fraction == 1
    assert not report.missing
    assert not report.unexpected
    assert same(source.encoder, target.encoder)
    assert torch.equal(target.head.weight, head)


def test_load_weights_names_what_did_not_match():
    state = Tiny().state_dict()
    state["extra"] = torch.zeros(1)
    del state["head.bias"]
    state["head.weight"] = torch.zeros(7, 7)
    report = load_weights(Tiny(), state, minimum=0.5)
    assert report.unexpected == ("extra",)
    assert report.missing == ("head.bias",)
    assert report.mismatched == ("head.weight",)
    assert len(report.matched) == len(state) - 2
    assert "1 missing (head.bias)" in str(report)


def test_below_the_minimum_nothing_is_loaded():
    network, state = Tiny(), Tiny().state_dict()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    del state["encoder.0.weight"]
    with pytest.raises(UserError, match="95 %"):
        load_weights(network, state, prefix="encoder.")
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())
    with pytest.raises(UserError, match=r"0\.0 %"):
        load_weights(network, {"module." + k: v for k, v in Tiny().state_dict().items()})


def test_the_longest_beginning_wins():
    state = {"a.b.weight": torch.ones(4, 3), "a.bias": torch.ones(4)}
    network = nn.Linear(3, 4)
    load_weights(network, state, key_map={"a.": "", "a.b.": ""})
    assert network.weight.sum() == 12


def test_person_digests_name_nobody_and_ignore_order():
    assert person_digests(["b", "a", "a"]) == person_digests(iter("ab"))
    assert all(len(d) == 64 for d in person_digests("ab"))


def test_a_model_comes_along_and_others_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("medprism.models.folder.BUILTIN", tmp_path / "models")
    shutil.copytree(folder, tmp_path / "models" / "tiny")
    assert find_model("builtin:tiny") == tmp_path / "models" / "tiny"
    assert same(load_model(Path("builtin:tiny"))[0], load_model(folder)[0])
    with pytest.raises(UserError, match="expected builtin:tiny, got builtin:other"):
        load_card(Path("builtin:other"))
