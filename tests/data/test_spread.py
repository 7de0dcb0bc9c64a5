import os
import signal
import sys

import pytest

from medprism.data import spread as module
from medprism.data.spread import spread, spread_in_order
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


def test_in_order_and_the_first_mistake_stops():
    assert list(spread_in_order(square, [4, 1, 2])) == [16, 1, 4]
    with pytest.raises(UserError, match="no three"):
        list(spread_in_order(square, [1, 3, 5]))


def kill_once(place):
    """Dies the first time, wherever it is."""
    marker, number = place
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.mark.slow
def test_the_work_of_a_killed_worker_is_done_again(tmp_path):
    distributed = pytest.importorskip("distributed")
    items = [(tmp_path / "died", number) for number in range(6)]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        made = list(spread_in_order(kill_once, items, scheduler=cluster.scheduler_address))
    assert (tmp_path / "died").exists()
    assert made == [0, 1, 4, 9, 16, 25]


@pytest.mark.slow
def test_more_items_than_wait_at_once_and_a_scheduler_that_is_lost(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(module, "AHEAD", 2)
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    cluster = distributed.LocalCluster(
        processes=False, n_workers=1, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    )
    with cluster:
        results = spread_in_order(square, list(range(10, 40)), scheduler=cluster.scheduler_address)
        assert next(results) == 100
        assert [next(results) for _ in range(20)] == [number**2 for number in range(11, 31)]
        cluster.close()
        with pytest.raises(UserError, match="to go on, got no answer any more; start it again"):
            list(results)


@pytest.mark.slow
def test_a_cluster_gives_the_same_and_no_scheduler_is_said(monkeypatch):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(processes=False, n_workers=1, dashboard_address=None) as cluster:
        there = {str(result) for result in spread(square, [1, 3, 2], scheduler=cluster.scheduler_address)}
    assert there == {str(result) for result in spread(square, [1, 3, 2])}
    message = r"a dask scheduler at tcp://127.0.0.1:1, got .*start one with"
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with pytest.raises(UserError, match=message):
        list(spread(square, [1], scheduler="tcp://127.0.0.1:1"))


def test_without_dask_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r'pip install "medprism\[dask\]"'):
        list(spread(square, [1], scheduler="tcp://127.0.0.1:1"))
