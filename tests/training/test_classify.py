import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import medprism
from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.errors import UserError
from medprism.finetune import finetune_classify as classify
from medprism.io.nifti import save_like
from medprism.models import NetworkConfig
from medprism.models.classifier import ClassifierConfig
from medprism.training.classify import named_classes
from medprism.training.fit import Compute
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from tests.data.scans import head
from tests.training.runs import table
from tests.training.runs import train as pretrain

MODALITIES = ("t1n", "t2w")
SMALL = {
    "network": NetworkConfig(width=4, levels=3, source="tagged"),
    "patches": PatchConfig(size=(16, 16, 16), per_subject=2, batch=2, validation=2),
    "classifier": ClassifierConfig(hidden=8, dropout=0.0),
    "optimiser": OptimiserConfig(lr=1e-2),
    "compute": Compute("cpu"),
    "epochs": 1,
    "seed": 3,
}


def cohort(root):
    """Heads of which those of class 5 have a hole; some training subjects lack a scan."""
    subjects = []
    for number in range(10):
        base, name, value = head(seed=number), f"s{number}", 5 if number % 2 else 2
        scan = base.array.copy()
        if value == 5:
            scan[12:18, 14:20, 11:17] = 20
        present = MODALITIES if number % 3 else MODALITIES[:1]
        for modality in present if number < 6 else MODALITIES:
            law = scan if modality == "t1n" else np.where(scan > 0, 600 - scan, 0)
            save_like(law.astype(np.float32), base, root / f"{name}/{modality}.nii.gz", kind="image")
        images = {m: f"{name}/{m}.nii.gz" for m in MODALITIES if (root / f"{name}/{m}.nii.gz").exists()}
        subjects.append(Subject(name, name, images, class_label=value))
    parts = tuple(subjects[:6]), tuple(subjects[6:8]), tuple(subjects[8:])
    return Cohort("heads", MODALITIES, {}, {}, root, *parts, classes={"holed": 5, "whole": 2})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    made = cohort(root)
    prepare(made, out=root / "cache", margin=2)
    made.save(root / "cohort.json")
    return root


@pytest.fixture(scope="module")
def run(data):
    torch.set_num_threads(1)
    return classify(data=data / "cache", out=data / "run", **SMALL)


def test_a_run_is_a_model_that_knows_what_to_expect(data, run):
    assert set(table(run)[0]) >= {"train/loss", "train/cross_entropy", "train/invariance", "val/balanced_accuracy"}
    model = medprism.load(run, "cpu")
    assert model.card["task"] == "classification"
    assert model.card["classes"] == {"whole": 2, "holed": 5}
    assert 0 <= model.card["validation_balanced_accuracy"] <= 1
    assert len(model.card["training_persons"]) == 8
    expected = model.expected(["t1n"])
    assert {name: row["split"] for name, row in expected.items()} == dict.fromkeys(expected, "validation")
    assert set(expected) >= {"auc", "acc", "f1"}
    result = model.classify({"T1": data / "s8" / "t1n.nii.gz"})
    assert set(result.probabilities) == {"whole", "holed"}
    assert result.sidecar["Expected"] == expected
    assert (run / "validation" / "metrics.json").exists()


def test_it_goes_on_to_the_same_end(data, run, tmp_path):
    out = tmp_path / "run"
    words = {"data": data / "cache", "out": out, **SMALL}
    classify(**words, resume="auto")
    before = (out / "model" / "model.json").read_text()
    classify(**words, resume="auto")  # is complete
    assert (out / "model" / "model.json").read_text() == before
    mine, other = (json.loads((path / "model" / "model.json").read_text())["sha256"] for path in (out, run))
    assert mine == other


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_it_starts_from_a_pretrained_model(data, tmp_path, part, caplog):
    network = replace(SMALL["network"], prior="token")
    init = pretrain(data / "cache", tmp_path / "init", epochs=1, network=network)
    with caplog.at_level("INFO", "medprism"):
        given = {**SMALL, "network": NetworkConfig()}
        run = classify(data=data / "cache", out=tmp_path / "run", init=init, part=part, **given)
    assert "matched (100.0 %)" in caplog.text
    shape = medprism.load(run, "cpu").card["architecture"]["network"]
    assert shape["prior"] == ("token" if part == "model" else "none")


def entry(subject, value):
    return SimpleNamespace(subject=subject, person=subject, class_label=value)


def test_classes_are_named_and_all_trained():
    training, validation = [entry("a", 1), entry("b", 0)], [entry("c", 0)]
    assert list(named_classes({"ill": 1, "well": 0}, training, validation)) == ["well", "ill"]
    assert named_classes({}, training, validation) == {"class 0": 0, "class 1": 1}


@pytest.mark.parametrize(
    ("names", "training", "validation", "told"),
    [
        ({}, [("a", 1), ("b", None)], [("c", None)], "got none for b, c; add `class`"),
        ({"ill": 1, "well": 0, "odd": 2}, [("a", 1), ("b", 0)], [("c", 0)], "got none of odd"),
        ({}, [("a", 1), ("b", 0)], [("c", 7)], r"validation subjects of others: c \(7\)"),
        ({}, [("a", 1)], [("c", 1)], "two classes or more, got class 1"),
    ],
)
def test_classes_that_cannot_be_trained(names, training, validation, told):
    with pytest.raises(UserError, match=told):
        named_classes(names, [entry(*one) for one in training], [entry(*one) for one in validation])
