"""The verb: which task is scored how, and what is refused."""

import json

import pytest

from medprism.cli import main
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.evaluation.evaluate import evaluate
from medprism.inference import trained
from medprism.inference.model import Model
from medprism.inference.segmentation import SegmentationModel
from medprism.models import folder
from tests.evaluation.fakes import FakeModel, FakeOutliner, cohort, law, outlined, outlined_cohort


@pytest.fixture
def task(monkeypatch):
    """Gives a verb a fake model for a task and a fake cache; returns what is written into the card."""
    written = {}

    def be(name, *, holes=False):
        test = [outlined("a"), outlined("b", present=(True, False, True) if holes else None)]
        cache = cohort() if name == "transfer" else outlined_cohort(test)
        model = FakeModel(cache, law) if name == "transfer" else FakeOutliner(cache)
        monkeypatch.setattr(trained, "task_of", lambda path: name)
        monkeypatch.setattr(Cache, "open", lambda path: cache)
        for kind in (Model, SegmentationModel):
            monkeypatch.setattr(kind, "load", lambda *about, **more: model)
        monkeypatch.setattr(folder, "add_to_card", lambda path, **more: written.update(more))
        return written

    return be


@pytest.mark.parametrize("name", ["transfer", "segmentation"])
def test_the_task_of_the_model_decides(task, tmp_path, name):
    written = task(name)
    metrics = evaluate(tmp_path / "model", data=tmp_path, out=tmp_path / "out", record=True)
    assert json.loads(metrics.read_text())["task"] == name
    assert {row["method"] for row in written["metrics"]["rows"]} == {"model"}
    assert {row["group"] for row in written["metrics"]["rows"]} == (
        {"pair", "diagonal", "to t1n", "to t1c", "to t2w"}
        if name == "transfer"
        else {"subset", "all-subsets", "without-full", "missing-1", "missing-2"}
    )
    assert written["metrics"]["split"] == "test"


def test_a_folder_of_something_else_is_left_alone(task, tmp_path):
    task("segmentation")
    (tmp_path / "cohort.json").write_text("{}")
    with pytest.raises(UserError, match=r"expected a folder for an evaluation, got .* with cohort\.json in it"):
        evaluate(tmp_path / "model", data=tmp_path, out=tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.json"]


def test_recorded_rows_are_found_by_what_is_given(task, tmp_path):
    written = task("segmentation", holes=True)
    evaluate(tmp_path / "model", data=tmp_path, out=tmp_path / "out", record=True)
    rows = [
        row
        for row in written["metrics"]["rows"]
        if (row["given"], row["region"], row["metric"]) == (["t1n", "t2w"], "WT", "dice")
    ]
    assert [(row["mean"], row["n"]) for row in rows] == [(1.0, 2)]
    assert {row["metric"] for row in written["metrics"]["rows"]} == {"dice", "hd95"}


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("segmentation", ["--protocols", "paper"], "--protocols with a model for transfer, got one for segmentation"),
        ("segmentation", ["--given", "rest"], "--given with a model for transfer"),
        (
            "transfer",
            ["--subsets", "t1n"],
            "--subsets with a model for segmentation or classification, got one for transfer",
        ),
        ("transfer", ["--small.ET", "500"], "--small with a model for segmentation"),
        ("transfer", ["--detection"], "--detection with a model for segmentation"),
        ("transfer", ["--representation", "--subsets", "t1n"], "got it with --representation"),
        ("singing", [], "expected a model for transfer, segmentation or classification, got one for singing"),
    ],
)
def test_options_of_another_task_are_refused(task, tmp_path, capsys, name, words, told):
    task(name)
    out = tmp_path / "out"
    assert main(["evaluate", "model", "--data", "cache", "--out", str(out), *words]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_options_of_segmentation_arrive(task, tmp_path):
    task("segmentation")
    words = ["--subsets", "t1n,t1n+t2w", "--small.ET", "5", "--detection"]
    assert main(["evaluate", "model", "--data", "cache", "--out", str(tmp_path / "out"), *words]) == 0
    head = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (head["subsets"], head["detection"]) == (["t1n", "t1n+t2w"], True)
    assert head["small"]["ET"]["LeastMm3"] == 5
