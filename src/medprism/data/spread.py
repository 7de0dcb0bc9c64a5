"""One function over many items: here, in processes, or on a dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from logging import getLogger
from multiprocessing import get_context
from socket import create_connection
from time import monotonic, sleep
from typing import TypeVar

from medprism._optional import require
from medprism.errors import UserError

logger = getLogger(__name__)

PATIENCE = 10.0  # seconds for a scheduler to answer, also when it is lost on the way
AHEAD = 1000  # items that wait at the scheduler, so that its memory does not grow with the cohort

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


def spread_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, scheduler: str | None = None
) -> Iterator[Result]:
    """As `spread`, but results come in the order of the items, so that sums of them are the same bit for bit.

    Args:
        function: Importable by name, of one picklable argument.
        items: What to apply it to.
        scheduler: As for `spread`; None works in this process, item by item.

    Yields:
        Results, in the order of the items.

    Raises:
        UserError: The first user's mistake, a worker died, or the scheduler does not answer.
    """
    waiting: dict[int, Result] = {}
    due = 0
    for done in spread(partial(_numbered, function), list(enumerate(items)), scheduler=scheduler):
        if isinstance(done, UserError):
            raise done
        number, result = done
        waiting[number] = result
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def _numbered(function: Callable[[Item], Result], item: tuple[int, Item]) -> tuple[int, Result]:
    return item[0], function(item[1])


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
        _knock(scheduler)
        client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError, OverflowError, MemoryError) as error:  # the last: of another protocol
        raise UserError(
            f"expected a dask scheduler at {scheduler}, got '{error}'; start one with `dask scheduler`"
        ) from error
    with client:
        if not client.nthreads():
            logger.warning("%s has no workers yet: waiting for some; start them with `dask worker`", scheduler)
        left = iter(items)
        # No other reference to a future: what a worker has done is not done again if it dies later.
        running = distributed.as_completed(
            [client.submit(function, item, pure=False) for item in islice(left, AHEAD)],
            loop=client.loop,
            with_results=True,
        )
        try:
            for _, result in running:
                if isinstance(result, CancelledError):  # dask hands it out, it does not raise it
                    raise UserError(
                        f"expected {scheduler} to go on, got no answer any more; start it again and give the same "
                        "command (finished work is kept)"
                    ) from result
                yield result
                for item in islice(left, 1):
                    running.add(client.submit(function, item, pure=False))
        except distributed.KilledWorker as error:
            raise _killed() from error


def _knock(scheduler: str) -> None:
    """Connect and hang up: a client that fails to goes on trying in the background, and tells of it at the end.

    Raises:
        OSError: nobody opened in time.
        ValueError: no address.
    """
    scheme, _, place = scheduler.rpartition("://")
    if scheme not in ("", "tcp", "tls"):
        return
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("no port in it")
    until = monotonic() + PATIENCE
    while True:
        try:
            create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
            return
        except OSError:
            if monotonic() > until:
                raise
            sleep(0.2)


def _killed() -> UserError:
    return UserError(
        "expected workers to finish, got one that died, most likely for want of memory; run again with fewer workers "
        '(finished work is kept), and in a script of your own keep the call under `if __name__ == "__main__":`'
    )
