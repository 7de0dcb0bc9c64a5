"""One function over many items: here, in processes, or on a dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from medprism._optional import require
from medprism.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int = 0, scheduler: str | None = None
) -> Iterator[Result | UserError]:
    """Apply a function to each item; yields results as they are done.

    A user's mistake in one item is yielded, not raised, so that the others go on. If the caller stops early, what has
    not begun is cancelled.

    Args:
        function: Importable by name, of one picklable argument.
        items: What to apply it to.
        workers: Processes; 0 works in this one.
        scheduler: Address of a dask.distributed scheduler, such as `tcp://10.0.0.1:8786`, instead of processes. Its
            workers must see the same files under the same paths.

    Yields:
        Results or UserErrors, in any order.

    Raises:
        UserError: A worker died, or the scheduler does not answer.
    """
    attempt = partial(_attempt, function)
    if scheduler is not None:
        return _on_cluster(attempt, items, scheduler)
    if workers > 0:
        return _in_processes(attempt, items, min(workers, len(items)))
    return map(attempt, items)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | UserError:
    try:
        return function(item)
    except UserError as error:
        return error


def _in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    # Spawned, not forked: a fork copies the locks of other threads (torch's, blosc2's) in whatever state they are.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        for done in as_completed([pool.submit(function, item) for item in items]):
            yield done.result()
    except BrokenProcessPool as error:
        raise _killed() from error
    finally:
        pool.shutdown(cancel_futures=True)


def _on_cluster(function: Callable[[Item], Result], items: Sequence[Item], scheduler: str) -> Iterator[Result]:
    distributed = require("distributed", extra="dask")
    try:
        client = distributed.Client(scheduler, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"expected a dask scheduler at {scheduler}, got '{error}'; start one with `dask scheduler`"
        ) from error
    with client:
        futures = client.map(function, items, pure=False)
        try:
            for _, result in distributed.as_completed(futures, loop=client.loop, with_results=True):
                yield result
        except distributed.KilledWorker as error:
            raise _killed() from error


def _killed() -> UserError:
    return UserError(
        "expected workers to finish, got one that died, most likely for want of memory; run again with fewer workers "
        '(finished work is kept), and in a script of your own keep the call under `if __name__ == "__main__":`'
    )
