import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import medprism
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.models import NetworkConfig
from medprism.models.folder import person_digests
from medprism.training.classify import named_classes
from medprism.training.share import share_of
from tests.training.classifying import SMALL, classify, make_classes
from tests.training.runs import table
from tests.training.runs import train as pretrain


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_classes(tmp_path_factory.mktemp("classes")).parent


@pytest.fixture(scope="module")
def run(data):
    return classify(data / "cache", data / "run")


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
    classify(data / "cache", out, resume="auto")
    before = (out / "model" / "model.json").read_text()
    classify(data / "cache", out, resume="auto")  # is complete
    assert (out / "model" / "model.json").read_text() == before
    mine, other = (json.loads((path / "model" / "model.json").read_text())["sha256"] for path in (out, run))
    assert mine == other


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_it_starts_from_a_pretrained_model(data, tmp_path, part, caplog):
    network = replace(SMALL["network"], prior="token")
    init = pretrain(data / "cache", tmp_path / "init", epochs=1, network=network)
    with caplog.at_level("INFO", "medprism"):
        run = classify(data / "cache", tmp_path / "run", init=init, part=part, network=NetworkConfig())
    assert "matched (100.0 %)" in caplog.text
    shape = medprism.load(run, "cpu").card["architecture"]["network"]
    assert shape["prior"] == ("token" if part == "model" else "none")


def test_a_third_of_the_scans_missing(data, run):
    present = np.array([one.present for one in Cache.open(data / "cache").subjects("training")])
    assert 1 - present.mean() >= 0.3
    assert not present.all(axis=0).any()  # no modality is there of everybody
    losses = [float(row["train/loss"]) for row in table(run)]
    assert np.isfinite(losses).all()
    given = {tuple(row["given"]) for row in medprism.load(run, "cpu").card["metrics"]["rows"]}
    assert given >= {("t1n",), ("t2w",), ("t1n", "t2w")}


def test_a_share_of_each_class_and_only_these_persons_count_as_seen(data, tmp_path):
    run = classify(data / "cache", tmp_path / "run", fraction=0.34)
    card, cache = medprism.load(run, "cpu").card, Cache.open(data / "cache")
    used = share_of(cache.subjects("training"), 0.34, SMALL["seed"], by_class=True)
    assert sorted(entry.class_label for entry in used) == [2, 5]
    persons = [entry.person for entry in (*used, *cache.subjects("validation"))]
    assert card["training_persons"] == person_digests(persons)
    assert card["config"]["fraction"] == 0.34


def test_a_run_from_before_there_were_shares_goes_on(data, run, tmp_path):
    old = tmp_path / "run"
    shutil.copytree(run, old)
    config = yaml.safe_load((old / "config.yaml").read_text())
    assert config.pop("fraction") == 1.0
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    classify(data / "cache", old, resume="auto")
    with pytest.raises(UserError, match=r"fraction was 1\.0, is 0\.5"):
        classify(data / "cache", old, resume="auto", fraction=0.5)


def test_a_place_that_is_taken_is_told_before_anything_is_read(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    for out, told in (
        ("full", "an empty folder"),
        ("full/thesis.txt/run", "got the file .*thesis.txt; choose another"),
    ):
        with pytest.raises(UserError, match=told):
            classify(tmp_path / "nowhere", tmp_path / out)


def test_who_has_no_class_is_named_before_anything_is_written(tmp_path):
    cache = make_classes(tmp_path, without=("s1", "s7"))
    with pytest.raises(UserError, match="got none for s1, s7; add `class`"):
        classify(cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
