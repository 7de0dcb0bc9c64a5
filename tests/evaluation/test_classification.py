import csv
import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from medprism.errors import UserError
from medprism.evaluation.classification import evaluate_classification
from medprism.evaluation.results import Results, read_scores
from medprism.evaluation.subsets import ALL, ONE, WITHOUT_FULL
from tests.evaluation.fakes import FakeCache, FakeModel, entry

MODALITIES = ("t1n", "t1c", "t2w")
CLASSES = {"well": 0, "ill": 3}


class Doctor:
    """Tells the class from t1c, where it is given, and guesses from the others."""

    def __init__(self, cache, path=None):
        self.path, self.classes, self.calls = path, tuple(CLASSES), []
        self.card = {**FakeModel(cache, None).card, "task": "classification", "classes": CLASSES}

    def predict(self, images, present, foreground=None, affine=None):
        assert not images[~present].any()
        assert foreground.shape == images.shape[1:]
        self.calls.append(tuple(present.tolist()))
        brightness = images[1].max() if present[1] else images[present].mean() % 1 * 6
        ill = np.clip(brightness / 6, 0, 1)
        return np.array([1 - ill, ill], np.float32)


def person(name, value, present=None, who=None):
    made = entry(name, modalities=MODALITIES, present=present, person=who)
    made.class_label = value
    made.volumes[1] = 0 if value is None else value * 2 * made.masks[1]
    return made


def cohort(test):
    train = [person(f"train-{k}", 3 if k < 2 else 0) for k in range(8)]
    cache = FakeCache(MODALITIES, {"training": train, "validation": [], "test": list(test)})
    cache.classes = dict(CLASSES)
    return cache


def some(count=6):
    return cohort([person(f"test-{k}", 3 * (k % 2)) for k in range(count)])


def run(cache, out, **keys):
    text, model = StringIO(), Doctor(cache)
    evaluate_classification(model, cache, out=out, console=Console(file=text, width=200), **keys)
    return Results.read(out), text.getvalue(), model


def value(results, metric, **keys):
    (row,) = results.select(**{"method": "model", "metric": metric, **keys})
    return row


def test_every_subset_of_every_subject_once(tmp_path):
    cache = cohort([person("a", 0), person("b", 3), person("holed", 3, present=(True, False, True))])
    results, _, model = run(cache, tmp_path / "out")
    assert (len(model.calls), len(set(model.calls))) == (7 + 7 + 3, 7)
    assert value(results, "acc", given=("t1n",)).n == 3
    assert value(results, "acc", given=("t1n", "t1c")).n == 2
    assert value(results, "auc", given=("t1c",)).mean == 1
    assert results.head["classes"] == {"well": 1, "ill": 2}


def test_numbers_are_those_of_the_probabilities(tmp_path):
    cache = some()
    results, text, _ = run(cache, tmp_path / "out")
    scores = [s for s in read_scores(tmp_path / "out") if s.given == ("t1n", "t2w") and s.region == "ill"]
    likely, truth = ([s.value for s in scores if s.metric == metric] for metric in ("probability", "truth"))
    assert truth == [0, 1, 0, 1, 0, 1]
    assert value(results, "auc", given=("t1n", "t2w")).mean == pytest.approx(roc_auc_score(truth, likely))
    subsets = results.select(method="model", metric="auc", group=ONE)
    assert len(subsets) == 7
    everything = value(results, "auc", group=ALL)
    assert everything.mean == pytest.approx(np.mean([row.mean for row in subsets]))
    assert everything.std == pytest.approx(np.std([row.mean for row in subsets], ddof=1))
    assert value(results, "auc", group=WITHOUT_FULL).n == 6
    assert value(results, "acc", given=("t1c",)).ci95 == (1, 1)
    assert "3 well, 3 ill" in text
    assert "balanced ACC" in text


def test_the_rival_tells_how_frequent_classes_were(tmp_path):
    results, text, _ = run(some(), tmp_path / "out")
    row = {metric: value(results, metric, method="majority", group=ALL).mean for metric in ("acc", "auc", "f1")}
    assert row == {"acc": 0.5, "auc": 0.5, "f1": pytest.approx(1 / 3)}  # "well" for all six
    assert "majority" in text


def test_persons_are_drawn_and_not_visits(tmp_path):
    visits = [person(f"v{k}", 3 * (k % 2), who="anna" if k < 4 else f"p{k}") for k in range(6)]
    results, *_ = run(cohort(visits), tmp_path / "out")
    low, high = value(results, "auc", given=("t1n",)).ci95
    assert 0 <= low <= value(results, "auc", given=("t1n",)).mean <= high <= 1
    alone, *_ = run(cohort([person(f"v{k}", 3 * (k % 2), who="anna") for k in range(4)]), tmp_path / "alone")
    assert value(alone, "auc", given=("t1n",)).ci95 is None


def test_one_class_alone_has_no_auc(tmp_path, caplog):
    results, *_ = run(cohort([person("a", 3), person("b", 3)]), tmp_path / "out")
    row = value(results, "auc", given=("t1c",))
    assert (row.mean, row.n, row.n_empty) == (None, 0, 2)
    assert value(results, "acc", given=("t1c",)).mean == 1
    assert "no test subject is of class well" in caplog.text


def test_subjects_without_class_are_left_out_and_counted(tmp_path, caplog):
    results, *_ = run(cohort([person("a", 0), person("b", 3), person("c", None)]), tmp_path / "out")
    assert (results.head["subjects"], results.head["unclassified"]) == (2, 1)
    assert "1 of 3 subjects have no class" in caplog.text


def test_named_subsets(tmp_path):
    results, *_ = run(some(), tmp_path / "out", subsets=["T1ce", "t1+t2"])
    assert results.head["subsets"] == ["t1c", "t1n+t2w"]
    with pytest.raises(UserError, match=r"that some test subject has, got t1c"):
        run(cohort([person("a", 0, present=(True, False, True))]), tmp_path / "other", subsets=["t1c"])


def test_files_are_plain(tmp_path):
    run(some(), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]
    assert {row["metric"] for row in rows} == {"acc", "balanced_acc", "auc", "f1"}
    with (tmp_path / "out" / "per_subject.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6 * 7 * 2 * 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cache: setattr(cache, "classes", {"well": 0, "ill": 1}), "got well 0, ill 1; name them so"),
        (lambda cache: setattr(cache.splits["test"][0], "class_label", 7), "got others for test-0"),
        (lambda cache: cache.splits.update(test=[person("x", None)]), "subjects with a class in split test"),
        (lambda cache: setattr(cache, "modalities", ("t1n", "t1c", "t2f")), "expected a cache of t1n t1c t2w"),
    ],
)
def test_what_does_not_fit(tmp_path, change, told):
    cache = some()
    model = Doctor(cache)
    change(cache)
    with pytest.raises(UserError, match=told):
        evaluate_classification(model, cache, out=tmp_path / "out", console=Console(file=StringIO()))
    assert not (tmp_path / "out").exists()
