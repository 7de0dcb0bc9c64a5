"""A fine-tuning for classification that was killed at any instant goes on to the very same model."""

import json
import signal

import pytest

from medprism.methods.classification import Classification
from medprism.training.module import OptimiserConfig
from tests.training.classifying import classify, make_classes
from tests.training.runs import assert_same, die, finish, leftovers, rows, start

LONG = {"epochs": 4, "optimiser": OptimiserConfig(lr=1e-2, average=0.9)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_classes(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def straight(cache, tmp_path_factory):
    run = tmp_path_factory.mktemp("straight") / "run"
    assert finish(start(classify, cache, run, **LONG)) == [0]
    return run


def assert_whole(run, straight):
    assert_same(run, straight)
    assert (run / "done").exists()
    assert leftovers(run) == []
    tables = [json.loads((folder / "validation/metrics.json").read_text()) for folder in (run, straight)]
    assert tables[0] == tables[1]


def test_killed_in_an_epoch_between_epochs_and_while_it_is_scored(cache, straight, tmp_path):
    run = tmp_path / "run"
    for at, name in ((9, "step"), (2, "last.ckpt"), (1, "validation/metrics.json")):
        code = finish(start(die, Classification, classify, cache, run, at, name, resume="auto", **LONG))
        assert code == [-signal.SIGKILL], (at, name)
    assert len(rows(run)) == 4
    assert finish(start(classify, cache, run, resume="auto", **LONG)) == [0]
    assert_whole(run, straight)


@pytest.mark.slow
def test_killed_before_each_step_and_file(cache, straight, tmp_path):
    """The n-th process dies at its n-th step or file, until one comes to the end."""
    run, code, deaths = tmp_path / "run", -signal.SIGKILL, 0
    while code:
        [code] = finish(start(die, Classification, classify, cache, run, deaths + 1, resume="auto", **LONG))
        assert code in (-signal.SIGKILL, 0)
        deaths += code != 0
    assert deaths > 10
    assert_whole(run, straight)
