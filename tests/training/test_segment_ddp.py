"""Two processes with batches of B segment as one process with batches of 2B: the losses are of all samples together."""

from dataclasses import replace

import pytest
import torch

from medprism.models import NetworkConfig
from medprism.models.segmenter import SegmenterConfig
from medprism.training.module import OptimiserConfig
from tests.training.runs import finish, leftovers, start, table, train_together
from tests.training.segmenting import SMALL, make_labelled, segment, segment_noting

ONE = replace(SMALL["patches"], batch=4)
EACH_OF_TWO = replace(ONE, batch=2)


def both(cache, folder, **changes):
    """The runs of one and of two processes."""
    assert finish(start(segment, cache, folder / "one", patches=ONE, **changes)) == [0]
    assert train_together(2, cache, folder / "two", task=segment_noting, patches=EACH_OF_TWO, **changes) == [0, 0]
    return folder / "one", folder / "two"


def last(run):
    return torch.load(run / "last.ckpt", weights_only=True)


def assert_near(run, other, rel):
    assert len(table(run)) == len(table(other))
    for row, its in zip(table(run), table(other), strict=True):
        assert {"train/loss", "train/dice", "train/cross_entropy", "val/dice"} <= row.keys()
        for name in row.keys() - {"seconds"}:
            assert float(row[name]) == pytest.approx(float(its[name]), rel=rel), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [SMALL["segmenter"], SegmenterConfig(fusion="mean"), SegmenterConfig(combine="channels", deep_supervision=1)],
    ids=["gates", "mean", "channels"],
)
def test_steps_have_the_same_losses_gradients_and_weights(labelled, tmp_path, config):
    changes = {"segmenter": config, "epochs": 1, "optimiser": OptimiserConfig(lr=1e-3, clip=0)}
    one, two = both(labelled, tmp_path, **changes)
    assert_near(one, two, 1e-4)
    states = [last(run)["optimizer_states"][0]["state"] for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        torch.testing.assert_close(state["exp_avg"], states[1][number]["exp_avg"], rtol=1e-3, atol=1e-5)
    for name, weights in last(one)["state_dict"].items():
        torch.testing.assert_close(weights, last(two)["state_dict"][name], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_whole_trainings_agree_and_are_scored_once(labelled, tmp_path):
    one, two = both(labelled, tmp_path)
    assert_near(one, two, 1e-3)
    files = [sorted(p.name for p in run.rglob("*") if not p.name.startswith("events.")) for run in (one, two)]
    assert files[0] == files[1]
    assert leftovers(two) == []
    assert [path.name for path in tmp_path.glob("scored-*")] == ["scored-0"]


@pytest.mark.slow
def test_gates_that_nothing_is_weighed_by(tmp_path):
    """Every training subject has one scan: the gates never have a gradient, in none of the processes."""
    cache = make_labelled(tmp_path / "cohort", holes=(("t1n",), ("t2w",), ("t2f",), ("t1n",)))
    one, two = both(cache, tmp_path, epochs=1, network=NetworkConfig(width=4, levels=3, source="tagged"))
    assert_near(one, two, 1e-4)
    states = [last(run)["optimizer_states"][0]["state"] for run in (one, two)]
    assert states[0].keys() == states[1].keys()
