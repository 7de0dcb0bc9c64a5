"""Several processes: one is killed, or comes back as another number of them; four train as one does."""

import shutil
import signal
import socket
import time
from dataclasses import replace
from functools import partial

import pytest

from medprism.methods.puir import PUIR
from tests.training.runs import (
    SMALL,
    assert_same,
    die,
    finish,
    leftovers,
    rows,
    start,
    table,
    train,
    train_as,
    train_together,
)

PATCHES = replace(SMALL["patches"], per_subject=2, batch=2)  # two processes make two steps in an epoch


def one_dies(cache, run, rank, at):
    """Two processes, of which one gets SIGKILL before its `at`-th step; their exit codes and the seconds after."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tasks = [partial(die, PUIR, train, at=at, name="step") if one == rank else train for one in range(2)]
    both = [start(train_as, one, 2, port, tasks[one], cache, run, {"patches": PATCHES}) for one in range(2)]
    both[rank].join(120)
    died = time.monotonic()
    codes = finish(*both)
    return codes, time.monotonic() - died


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_other_ends_soon_and_the_run_goes_on_to_the_same_model(cache, tmp_path, rank):
    run, straight = tmp_path / "run", tmp_path / "straight"
    codes, seconds = one_dies(cache, run, rank, at=6)  # in the middle of the third epoch
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 1
    assert seconds < 30
    assert len(rows(run)) == 2
    assert not (run / "done").exists()
    assert train_together(2, cache, run, patches=PATCHES, resume="auto") == [0, 0]
    assert train_together(2, cache, straight, patches=PATCHES) == [0, 0]
    assert_same(run, straight)
    assert leftovers(run) == []


@pytest.mark.slow
def test_another_number_of_processes_is_refused_and_changes_nothing(cache, straight, tmp_path):
    run = shutil.copytree(straight, tmp_path / "run")
    (run / "done").unlink()
    before = {name: (run / name).read_bytes() for name in ("last.ckpt", "metrics.csv", "model/model.safetensors")}
    assert train_together(2, cache, run, resume="auto") == [1, 1]
    assert {name: (run / name).read_bytes() for name in before} == before
    assert finish(start(train, cache, run, resume="auto")) == [0]
    assert_same(run, straight)


@pytest.mark.slow
def test_four_processes_are_one_with_four_times_the_batch(cache, tmp_path):
    one, four = tmp_path / "one", tmp_path / "four"
    assert finish(start(train, cache, one, patches=replace(PATCHES, batch=8), epochs=1)) == [0]
    assert train_together(4, cache, four, patches=PATCHES, epochs=1) == [0] * 4
    [row], [other] = table(one), table(four)
    for name in row.keys() - {"seconds"}:
        assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4), name
