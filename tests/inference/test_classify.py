import json

import numpy as np
import pytest
import torch

import medprism
from medprism import cli, models
from medprism.data.recipe import Recipe
from medprism.data.volume import assemble
from medprism.errors import UserError
from medprism.inference.classification import ClassificationModel
from medprism.inference.classify import classify
from medprism.io import Grid, new_scan
from medprism.models.folder import save_model
from tests.inference.test_synthesize import cohort
from tests.inference.tiny import AFFINES, CLASSIFICATION, MODALITIES, Mean, Mood, build, card, head, write
from tests.leaks import assert_absent_is_unread


@pytest.fixture(autouse=True)
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", build)


ROWS = [
    {"method": "lookup", "given": ["t1n"], "metric": "auc", "mean": 0.1, "n": 9},
    {"method": "model", "given": ["t1n"], "metric": "auc", "mean": 0.812, "ci95": [0.7, 0.9], "n": 9},
    {"method": "model", "given": ["t1n"], "metric": "acc", "mean": 0.75, "n": 9},
]


@pytest.fixture
def model(tmp_path):
    told = card(**CLASSIFICATION, metrics={"split": "validation", "rows": ROWS})
    return save_model(tmp_path / "run" / "model", Mood(), told).parent


@pytest.fixture
def scan(tmp_path):
    return write(tmp_path / "raw" / "a.nii.gz", head(), AFFINES["oblique"])


def in_memory(patch=(8, 8, 8)):
    return ClassificationModel(Mood(), card(**CLASSIFICATION, patch_size=list(patch)), device="cpu")


def test_windows_count_by_their_foreground():
    images = np.zeros((3, 16, 8, 8), np.float32)
    images[:, :8], images[:, 8:] = 1, -2
    foreground = np.zeros((16, 8, 8), bool)
    foreground[0, 0, 0] = foreground[8, :3, 0] = True
    mean = (1 * 1 + 3 * -2) / 4
    wanted = torch.tensor([-mean, mean, -9]).softmax(0)
    made = in_memory().predict(images, np.array([True, False, True]), foreground)
    np.testing.assert_allclose(made, wanted, rtol=1e-5)


def test_no_method_reads_what_is_absent():
    images = np.random.default_rng(1).normal(size=(3, 12, 9, 10)).astype(np.float32)
    assert_absent_is_unread(in_memory().predict, images)


def test_from_python(tmp_path, model):
    scan = new_scan(head(), Grid((20, 24, 18), AFFINES["ras"]))
    loaded = medprism.load(model, "cpu")
    told = []
    result = loaded.classify({"T1": scan}, progress=told.append)
    assert told[-1] == 1
    assert list(result.probabilities) == ["dull", "bright", "odd"]
    assert sum(result.probabilities.values()) == pytest.approx(1)
    volume = assemble({"t1n": scan}, Recipe.of(MODALITIES))
    likely = loaded.predict(volume.images, volume.present, volume.foreground.any(0))
    np.testing.assert_allclose(list(result.probabilities.values()), likely, rtol=1e-5)
    assert result.likeliest == ("dull", "bright", "odd")[likely.argmax()]
    assert result.save(tmp_path / "r.json").exists()
    with pytest.raises(UserError, match="--force"):
        result.save(tmp_path / "r.json")
    with pytest.raises(UserError, match=r"ending in \.json"):
        result.save(tmp_path / "r.txt")


def test_one_subject_by_files(tmp_path, model, scan, capsys):
    out = tmp_path / "result.json"
    words = ["classify", str(model), "--image.t1n", str(scan), "--out", str(out)]
    assert cli.main(words) == 0
    told = json.loads(out.read_text())
    assert told["Class"] == max(told["Probabilities"], key=told["Probabilities"].get)
    assert (told["SourceModalities"], told["AbsentModalities"]) == (["t1n"], ["t2w", "t2f"])
    assert told["Sources"] == ["a.nii.gz"]
    assert told["Expected"]["auc"] == {"mean": 0.812, "ci95": [0.7, 0.9], "n": 9, "split": "validation"}
    shown = capsys.readouterr().out
    for words_shown in ("given: a.nii.gz", "absent", "0.812 (0.7 to 0.9)", f"Found: {told['Class']}"):
        assert words_shown in shown
    assert cli.main(words) == 2
    again = capsys.readouterr()
    assert "--force" in again.err
    assert again.out == ""


def test_a_cohort_goes_on_where_it_stopped(tmp_path, model, monkeypatch):
    data, out = cohort(tmp_path / "raw"), tmp_path / "out"
    made = classify(model, data=data, out=out)
    assert [path.name for path in made] == ["sub-0.json", "sub-1.json", "sub-2.json"]
    assert json.loads(made[1].read_text())["Sources"] == ["sub-1/t1n.nii.gz", "sub-1/t2w.nii.gz"]
    made[1].unlink()
    calls, real = [], ClassificationModel.classify
    monkeypatch.setattr(
        ClassificationModel, "classify", lambda self, images, **o: calls.append(1) or real(self, images, **o)
    )
    assert classify(model, data=data, out=out) == made
    assert len(calls) == 1


def test_bad_requests(tmp_path, model, scan):
    for images, out, message in (
        ({"t1n": scan}, "result.txt", r"ending in \.json"),
        ({"ct": scan}, "result.json", "which the model knows"),
        ({}, "result.json", "give one of them"),
    ):
        with pytest.raises(UserError, match=message):
            classify(model, image=images, out=tmp_path / out)
    with pytest.raises(UserError, match="a folder for the results"):
        classify(model, data=cohort(tmp_path / "other"), out=tmp_path / "result.json")
    with pytest.raises(UserError, match="use medprism synthesize"):
        classify(save_model(tmp_path / "generator", Mean(), card()), image={"t1n": scan}, out=tmp_path / "r.json")
    with pytest.raises(UserError, match="classes in the card"):
        ClassificationModel(Mood(), card(**{**CLASSIFICATION, "classes": {}}), device="cpu")
