"""The tables of classification: every subset of the scans, and means over subsets beside the rival."""

from __future__ import annotations

from typing import Any

from medprism.evaluation.class_tables import NAMES, mean_row
from medprism.evaluation.classification import MAJORITY, TASK
from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_tables import columns_of
from medprism.evaluation.subsets import ALL, ONE, spelled
from medprism.evaluation.tables import number
from medprism.report.style import MODEL
from medprism.report.subsets import Line
from medprism.report.tables import Cell, interval, mix

__all__ = ["TASK", "classification"]


def classification(results: Results) -> dict[str, Any]:
    """All that the template shows of one evaluation."""
    counts = results.head["classes"]
    return {
        "counts": ", ".join(f"{count} {name}" for name, count in counts.items()),
        "metrics": list(NAMES.values()),
        "cards": [
            (title, *(_cell(mean_row(results, method, metric, ALL)) for method in ("model", MAJORITY)))
            for metric, title in NAMES.items()
        ],
        "lines": lines(results),
        "columns": [title for title, _ in columns_of(results)],
        "means": means(results),
        "unclassified": results.head["unclassified"],
        "fill": results.head.get("fill"),
    }


def lines(results: Results) -> list[Line]:
    """Every subset; each number coloured from chance, a half, to 1."""
    rows = {(row.given, row.metric): row for row in results.select(method="model", group=ONE)}
    names, found, size = results.head["modalities"], list[Line](), 0
    for given in dict.fromkeys(given for given, _ in rows):
        own = [rows[given, metric] for metric in NAMES]
        dots = [name in given for name in names]
        cells = [_cell(row, colour=True) for row in own]
        found.append(Line(spelled(given), dots, max(row.n for row in own), cells, len(given) > size > 0))
        size = len(given)
    return found


def means(results: Results) -> list[tuple[str, str, list[Cell]]]:
    """Means over subsets as (metric, method, cells)."""
    methods = dict.fromkeys(row.method for row in results.select(group=ALL))
    groups = [group for _, group in columns_of(results)]
    return [
        (title, method, [_cell(mean_row(results, method, metric, group)) for group in groups])
        for metric, title in NAMES.items()
        for method in methods
    ]


def _cell(row: Row | None, *, colour: bool = False) -> Cell:
    if row is None or row.mean is None:
        return Cell("–")
    shade = mix(MODEL, 0.06 + 0.8 * max(0.0, row.mean - 0.5)) if colour else ""
    return Cell(number(row.mean, row.metric), interval(row), shade, title=f"n = {row.n}")
