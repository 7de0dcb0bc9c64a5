"""The command, from a model folder to a folder for others, and what it refuses."""

import errno
import json
import os
import re
import sys

import numpy as np
import pytest
import torch

import medprism
from medprism.cli import main
from medprism.export import onnx_file
from medprism.models.folder import sha256
from medprism.models.prism import Prism
from tests.export.folders import model_folder
from tests.export.networks import NAMES, PATCH, M, unet
from tests.inference.tiny import head, write

runtime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    model_folder(root / "run/model", "channels")
    assert main(["export", str(root / "run"), "--format", "onnx", "--out", str(root / "graph")]) == 0
    return root


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def command(*words, says):
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(["export", *map(str, words)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        assert says in err
        assert sorted(tmp_path.rglob("*")) == before

    return command


def test_a_graph_has_all_that_is_needed(base):
    assert sorted(path.name for path in (base / "graph").iterdir()) == ["README.md", "model.json", "model.onnx"]
    card = json.loads((base / "graph/model.json").read_text())
    original = json.loads((base / "run/model/model.json").read_text())
    assert {key: value for key, value in card.items() if key != "onnx"} == original
    assert card["onnx"]["sha256"] == {"model.onnx": sha256(base / "graph/model.onnx")}
    assert card["onnx"]["relative_difference"]["model.onnx"] < 1e-4
    assert card["onnx"]["serves"] == "every non-empty subset"
    assert card["onnx"]["subsets_compared"] == 2**M - 1


def test_the_code_on_its_page_runs(base, monkeypatch):
    monkeypatch.chdir(base / "graph")
    page = (base / "graph/README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 3, *PATCH)
    for name in NAMES:
        assert f"| {name} | a.u. |" in page
    assert "Somebody 2025" in page


def test_the_label_map_is_the_same_by_the_graph(base, tmp_path):
    scan = write(tmp_path / "a.nii.gz", head())
    model = medprism.load(base / "run", "cpu")
    wanted = model.segment({"t2w": scan})
    session = onnx_file.session(base / "graph/model.onnx")

    def segment(images, present):
        given = {"images": np.ascontiguousarray(images.numpy()), "present": np.ascontiguousarray(present.numpy())}
        return torch.from_numpy(session.run(None, given)[0])

    model.runner.segment = segment
    got = model.segment({"t2w": scan})
    assert (got.array != wanted.array).mean() < 1e-3
    assert len(np.unique(got.array)) > 1


@pytest.mark.slow
def test_a_classifier_is_two_graphs(tmp_path, capsys):
    model_folder(tmp_path / "model", "classifier-mean")
    assert main(["export", str(tmp_path / "model"), "--format", "onnx", "--out", str(tmp_path / "graph")]) == 0
    told = capsys.readouterr().out
    for word in ("model.onnx: largest difference", "over 7 subsets", "head.onnx", "size: ", "wrote "):
        assert word in told
    model = medprism.load(tmp_path / "model", "cpu")
    images = np.random.default_rng(0).normal(size=(1, M, *PATCH)).astype(np.float32)
    present = np.array([[True, False, True]])
    [features] = onnx_file.session(tmp_path / "graph/model.onnx").run(None, {"images": images, "present": present})
    [logits] = onnx_file.session(tmp_path / "graph/head.onnx").run(None, {"features": features})
    wanted = model.runner.head(model.runner.features(torch.from_numpy(images), torch.from_numpy(present)))
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
    assert "The head is not for single windows" in " ".join((tmp_path / "graph/README.md").read_text().split())


@pytest.mark.parametrize("file_format", ["onnx", "bundle"])
def test_models_that_are_none_or_do_nothing_are_refused(refused, tmp_path, file_format):
    model_folder(tmp_path / "start", "transfer", task="representation")
    words = ["--format", file_format, "--out", "made"]
    refused("nowhere", *words, says="nowhere does not exist")
    refused("start", *words, says="got one for representation in start; use medprism finetune --init first")


def test_an_unknown_format_is_refused(refused, base):
    refused(base / "run", "--format", "torchscript", "--out", "made", says="expected onnx or bundle for --format")
    refused(base / "run", "--out", "made", says="--format")


def test_altered_weights_are_refused(refused, tmp_path):
    weights = model_folder(tmp_path / "model", "transfer") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    refused("model", "--format", "bundle", "--out", "made", says="sha256")


def test_a_missing_extra_is_named_before_anything_is_read(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused("nowhere", "--format", "onnx", "--out", "made", says='pip install "medprism[onnx]"')


def test_a_graph_that_differs_leaves_nothing_behind(refused, base, monkeypatch):
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    refused(base / "run", "--format", "onnx", "--out", "deep/made", says="nothing was written")


def test_what_is_in_the_way_is_kept(refused, base, tmp_path):
    words = [base / "run", "--format", "bundle", "--out"]
    (tmp_path / "file").write_text("mine")
    refused(*words, "file", says="got the file")
    assert main(["export", *map(str, words), "made"]) == 0
    refused(*words, "made", says="give --force")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    refused(*words, "notes", "--force", says="mine.txt")
    refused(*words, base / "run/model", "--force", says="model.safetensors")
    (tmp_path / "made/eval").mkdir()
    refused(*words, "made", "--force", says="eval")


def test_force_replaces_an_export(base, tmp_path):
    words = ["export", str(base / "run"), "--format", "bundle", "--out", str(tmp_path / "made")]
    assert main(words) == 0
    (tmp_path / "made/docs/README.md").write_text("old")
    assert main([*words, "--force"]) == 0
    assert (tmp_path / "made/docs/README.md").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_no_space_leaves_what_was_there(refused, base, tmp_path, monkeypatch):
    words = [base / "run", "--format", "bundle", "--out", "made"]
    assert main(["export", *map(str, words)]) == 0

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    refused(*words, "--force", says="No space left")
    refused(*words[:-1], "other", says="No space left")
    assert (tmp_path / "made/configs/metadata.json").exists()


def test_a_network_without_decoder_is_refused(refused, tmp_path):
    network = Prism(unet(), M, PATCH, outputs=0)
    model_folder(tmp_path / "model", "transfer", architecture=network.architecture)
    refused("model", "--format", "onnx", "--out", "made", says="do not fit the architecture")
