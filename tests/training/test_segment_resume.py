"""A fine-tuning that was killed at any instant goes on to the very same model, scores of the validation included."""

import json
import shutil
import signal

import pytest

from medprism.errors import UserError
from medprism.methods.segmentation import Segmentation
from tests.training.runs import assert_same, die, finish, leftovers, rows, start
from tests.training.segmenting import segment, segment_worsening


@pytest.fixture(scope="module")
def straight(labelled, tmp_path_factory):
    run = tmp_path_factory.mktemp("worsening") / "run"
    assert finish(start(segment_worsening, labelled, run)) == [0]
    scores = [float(row["val/dice"]) for row in rows(run)]
    assert scores == sorted(set(scores), reverse=True)  # the first epoch stays the best
    return run


def assert_whole(run, straight):
    assert_same(run, straight)
    assert (run / "done").exists()
    assert leftovers(run) == []
    tables = [json.loads((folder / "validation/metrics.json").read_text()) for folder in (run, straight)]
    assert tables[0] == tables[1]
    assert json.loads((run / "model/model.json").read_text())["metrics"]["rows"]


def test_killed_in_an_epoch_between_epochs_and_while_it_is_scored(labelled, straight, tmp_path):
    run = tmp_path / "run"
    for at, name in (
        (3, "step"),
        (3, "last.ckpt"),  # two epochs are done: 2 + 2 are 4
        (2, "model/model.json"),  # done but not scored: the model of the best epoch is written first
        (1, "validation/metrics.json"),
        (1, "model/model.json"),  # scored, but the model does not know
    ):
        code = finish(start(die, Segmentation, segment_worsening, labelled, run, at, name, resume="auto"))
        assert code == [-signal.SIGKILL], (at, name)
    assert len(rows(run)) == 4
    assert finish(start(segment_worsening, labelled, run, resume="auto")) == [0]
    assert_whole(run, straight)


@pytest.mark.slow
def test_killed_before_each_step_and_file(labelled, straight, tmp_path):
    """The n-th process dies at its n-th step or file, until one comes to the end."""
    run, deaths = tmp_path / "run", 0
    while not (run / "done").exists():
        [code] = finish(start(die, Segmentation, segment_worsening, labelled, run, deaths + 1, resume="auto"))
        assert code in (-signal.SIGKILL, 0)
        deaths += code != 0
    assert deaths > 10
    for at in range(1, 20):  # and while it is scored
        [code] = finish(start(die, Segmentation, segment_worsening, labelled, run, at, resume="auto"))
        deaths += code != 0
    assert code == 0
    assert deaths > 15
    assert_whole(run, straight)


def test_a_finished_run_is_left_alone(labelled, segmenter, tmp_path):
    run = shutil.copytree(segmenter, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert segment(labelled, run, resume="auto") == run
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    with pytest.raises(UserError, match=r"fraction was 1\.0, is 0\.5"):
        segment(labelled, run, resume="auto", fraction=0.5)
    with pytest.raises(UserError, match="--resume auto, --force or another"):
        segment(labelled, run)
