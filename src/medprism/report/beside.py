"""Runs that were scored under subsets of the scans beside each other: tables, and curves over missing scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medprism.evaluation.comparison import verdict
from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_scoring import METHODS
from medprism.evaluation.subset_tables import columns_of, mean_row
from medprism.evaluation.subset_tasks import SUBSET_TASKS, spoken
from medprism.report.figures import by_missing
from medprism.report.runs import Run
from medprism.report.subsets import plain
from medprism.report.tables import Cell, interval, signed


@dataclass(frozen=True)
class Beside:
    """Several runs beside each other, by one number.

    Attributes:
        task: that they do.
        title: of the number.
        columns: titles of the means over subsets.
        rows: (run, cells, differences to the first run, split hash, whether it is the first run's).
    """

    task: str
    title: str
    columns: list[str]
    rows: list[tuple[str, list[Cell], list[Cell], str, bool]]


def beside(runs: Sequence[Run]) -> list[Beside]:
    """The chief numbers of every run, and its paired difference to the first one that does the same task."""
    return [table for name in SUBSET_TASKS for table in _of_task(name, _scored(runs, name))]


def curves(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(what, figure as a `data:` URI) of each task of several runs: its last chief number over missing scans."""
    made = []
    for name, task in SUBSET_TASKS.items():
        scored = _scored(runs, name)
        if len(scored) > 1:
            numbers = task.chief(scored[0][1])[-1:]
            figure = by_missing([(run.name, results, METHODS[0]) for run, results in scored], numbers)
            made += [] if figure is None else [(spoken(numbers), figure)]
    return made


def _scored(runs: Sequence[Run], task: str) -> list[tuple[Run, Results]]:
    return [(run, run.results) for run in runs if run.results is not None and run.results.head["task"] == task]


def _of_task(name: str, scored: Sequence[tuple[Run, Results]]) -> list[Beside]:
    """A table for each of the task's chief numbers; none of fewer than two runs."""
    if len(scored) < 2:
        return []
    task, (first, reference) = SUBSET_TASKS[name], scored[0]
    columns, names = columns_of(reference), reference.head["modalities"]
    same = [results.head["split_hash"] == reference.head["split_hash"] for _, results in scored]
    paired = [
        Results(reference.head, task.compare([run.scores], [first.scores], names) if alike and run is not first else ())
        for (run, _), alike in zip(scored, same, strict=True)
    ]
    made = []
    for one in task.chief(reference):
        rows = []
        for (run, results), difference, alike in zip(scored, paired, same, strict=True):
            own, other = (
                [mean_row(table, method, one.region, one.metric, group) for _, group in columns]
                for table, method in ((results, METHODS[0]), (difference, "difference"))
            )
            split = str(results.head["split_hash"])[:12]
            rows.append((run.name, list(map(plain, own)), list(map(_difference, other)), split, alike))
        made.append(Beside(name, one.title, [title for title, _ in columns], rows))
    return made


def _difference(row: Row | None) -> Cell:
    if row is None or row.mean is None:
        return Cell("–")
    return Cell(signed(row.mean, row.metric), interval(row), verdict=verdict(row), title=f"n = {row.n}")
