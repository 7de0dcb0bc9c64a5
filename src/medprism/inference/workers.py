"""A trained model that each worker of a dask cluster loads once, and work with it for many subjects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from medprism.data.spread import spread, spread_in_order
from medprism.errors import UserError
from medprism.inference.device import Precision
from medprism.inference.trained import Trained

Kind = TypeVar("Kind", bound=Trained)
Item = TypeVar("Item")
Result = TypeVar("Result")

_one_at_a_time = Lock()  # a worker may have several threads; a model that runs out of memory changes while it works


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster and what they load.

    Attributes:
        scheduler: address of the dask.distributed scheduler.
        kind: class of the model.
        path: the model folder, the same for all.
        device: `auto` is what each worker has.
        precision: as for `Trained.load`.
        digest: of the card; a worker that finds another model under the path refuses.
    """

    scheduler: str
    kind: type[Trained]
    path: Path
    device: str
    precision: Precision
    digest: str

    def each(
        self, function: Callable[[Any, Item], Result], items: Sequence[Item], *, ordered: bool = False
    ) -> Iterator[Result | UserError]:
        """Apply a function of the model and an item to each item, on the workers.

        A worker that dies has its item done again by another, up to three times.

        Args:
            function: importable by name, or a `partial` of one.
            items: picklable; paths in them are absolute.
            ordered: results come in the order of the items and the first mistake is raised, as by `spread_in_order`.

        Yields:
            Results or UserErrors.

        Raises:
            UserError: the scheduler does not answer, or an item killed every worker that tried it.
        """
        there = partial(_with_model, self, function)
        return (spread_in_order if ordered else spread)(there, items, scheduler=self.scheduler)


def load_for(
    kind: type[Kind], path: Path, *, device: str, precision: Precision, scheduler: str | None
) -> tuple[Kind, Workers | None]:
    """A model, and the workers that load it too where a scheduler is named; then here it stays on the CPU.

    Args:
        kind: class of the model.
        path: model or run folder.
        device: as for `Trained.load`; of the workers if there are any.
        precision: likewise.
        scheduler: address, or None to work in this process.

    Raises:
        UserError: as for `Trained.load`.
    """
    model = kind.load(path, "cpu" if scheduler else device, precision=precision)
    if scheduler is None:
        return model, None
    assert model.path is not None
    return model, Workers(scheduler, kind, model.path.absolute(), device, precision, _digest(model.card))


def in_turn(
    model: Any,  # noqa: ANN401 - of each evaluation its own
    workers: Workers | None,
    function: Callable[[Any, Item], Result],
    items: Sequence[Item],
) -> Iterator[Result]:
    """Results of a function of the model and an item, in the order of the items: here, or on workers if there are any.

    Raises:
        UserError: the first user's mistake, or as for `Workers.each`.
    """
    if workers is None:
        yield from (function(model, item) for item in items)
    else:
        for result in workers.each(function, items, ordered=True):
            assert not isinstance(result, UserError)
            yield result


def _with_model(workers: Workers, function: Callable[[Any, Item], Result], item: Item) -> Result:
    with _one_at_a_time:
        return function(_resident(workers), item)


@lru_cache(maxsize=1)
def _resident(workers: Workers) -> Trained:
    model = workers.kind.load(workers.path, workers.device, precision=workers.precision)
    if _digest(model.card) != workers.digest:
        raise UserError(
            f"expected one model in {workers.path} on all machines, got another on a worker; "
            "give a path that all of them share"
        )
    return model


def _digest(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(card), sort_keys=True).encode()).hexdigest()
