import os
import signal
import sys

import pytest

from medprism.data.spread import spread
from medprism.errors import UserError


def square(number):
    if number == 3:
        raise UserError("expected no three, got 3; leave it out")
    if number == 5:
        raise RuntimeError("a bug")
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_results_and_users_mistakes_are_yielded():
    assert [str(result) for result in spread(square, [1, 3, 2])] == ["1", "expected no three, got 3; leave it out", "4"]


def test_it_works_item_by_item():
    results = spread(square, [2, 5])
    assert next(results) == 4
    with pytest.raises(RuntimeError, match="a bug"):
        next(results)


def test_processes_give_the_same_and_bugs_are_raised():
    there = {str(result) for result in spread(square, [1, 3, 2, 4], workers=2)}
    assert there == {str(result) for result in spread(square, [1, 3, 2, 4])}
    with pytest.raises(RuntimeError, match="a bug"):
        list(spread(square, [5], workers=1))


def test_a_killed_worker_is_said():
    with pytest.raises(UserError, match=r"got one that died.*fewer workers \(finished work is kept\)"):
        list(spread(square, [7], workers=1))


@pytest.mark.slow
def test_a_cluster_gives_the_same_and_no_scheduler_is_said():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(processes=False, n_workers=1, dashboard_address=None) as cluster:
        there = {str(result) for result in spread(square, [1, 3, 2], scheduler=cluster.scheduler_address)}
    assert there == {str(result) for result in spread(square, [1, 3, 2])}
    message = r"a dask scheduler at tcp://127.0.0.1:1, got .*start one with"
    quick = {"distributed.comm.timeouts.connect": "1s"}
    with pytest.importorskip("dask").config.set(quick), pytest.raises(UserError, match=message):
        list(spread(square, [1], scheduler="tcp://127.0.0.1:1"))


def test_without_dask_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r'pip install "medprism\[dask\]"'):
        list(spread(square, [1], scheduler="tcp://127.0.0.1:1"))
