"""The tables of segmentation: every subset of the scans, means over subsets, detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medprism.evaluation.detection import METRICS
from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_scoring import EMPTY, METHODS
from medprism.evaluation.subset_tables import (
    DETECTION_NAMES,
    NAMES,
    columns_of,
    mean_row,
    methods_of,
    regions_of,
    told_of_empty,
)
from medprism.evaluation.subset_tasks import SUBSET_TASKS
from medprism.evaluation.subsets import ALL, ONE, spelled
from medprism.evaluation.tables import number
from medprism.report.figures import by_missing
from medprism.report.style import MODEL
from medprism.report.tables import Cell, interval, mix

TASK = "segmentation"


@dataclass(frozen=True)
class Line:
    """One line: what is given (a dot for each modality) or what a name says, how many subjects, and numbers."""

    name: str
    dots: list[bool]
    n: int
    cells: list[Cell]
    first: bool


def segmentation(results: Results) -> dict[str, Any]:
    """All that the template shows of one evaluation."""
    regions, columns, chief = regions_of(results), columns_of(results), SUBSET_TASKS[TASK].chief(results)
    return {
        "regions": regions,
        "metrics": list(NAMES.values()),
        "cards": [(region, *cards(results, region)) for region in regions],
        "means": {NAMES[metric]: means(results, metric) for metric in NAMES},
        "columns": [title for title, _ in columns],
        "subsets": {method: lines(results, method) for method in methods_of(results) if method != EMPTY},
        "detection": {region: detected(results, region) for region in regions} if results.head["detection"] else {},
        "detection_names": list(DETECTION_NAMES.values()),
        "curve": by_missing([(method, results, method) for method in methods_of(results)], chief),
        "empty": told_of_empty(results),
        "rule": results.head["empty_rule"],
        "small": results.head["small"] or {},
        "unlabelled": results.head["unlabelled"],
        "leak": results.head.get("leak"),
        "fill": results.head.get("fill"),
    }


def cards(results: Results, region: str) -> tuple[Cell, Cell]:
    """Dice and HD95 of a region, mean over all subsets."""
    dice, distance = (mean_row(results, METHODS[0], region, metric, ALL) for metric in NAMES)
    return plain(dice), plain(distance)


def lines(results: Results, method: str) -> list[Line]:
    """Every subset (layout of the paper's Table 11), Dice coloured from the region's worst to its best subset."""
    rows = {(row.given, row.region, row.metric): row for row in results.select(method=method, group=ONE)}
    names, regions = results.head["modalities"], regions_of(results)
    found: list[Line] = []
    size = 0
    ends = {region: _ends([row for (_, own, metric), row in rows.items() if (own, metric) == (region, "dice")])
            for region in regions}  # fmt: skip
    for given in dict.fromkeys(given for given, _, _ in rows):
        cells = []
        for region in regions:
            dice, distance = (rows[given, region, metric] for metric in NAMES)
            cells += [plain(dice, _colour(dice, *ends[region])), plain(distance)]
        n = rows[given, regions[0], "dice"].n
        found.append(Line(spelled(given), [name in given for name in names], n, cells, len(given) > size > 0))
        size = len(given)
    return found


def means(results: Results, metric: str) -> list[tuple[str, str, list[Cell]]]:
    """Means over subsets (layout of the paper's Table 3) as (region, method, cells)."""
    return [
        (
            region,
            method,
            [plain(mean_row(results, method, region, metric, group)) for _, group in columns_of(results)],
        )
        for region in regions_of(results)
        for method in methods_of(results)
    ]


def detected(results: Results, region: str) -> list[tuple[str, str, list[Cell]]]:
    """Scores of scans with and without lesions (layout of the paper's Tables 7 and 8) as (given, method, cells)."""
    rows = {(r.group, r.given, r.method, r.metric): r for r in results.select(region=region) if r.metric in METRICS}
    return [
        (
            spelled(given) or "mean over subsets",
            method,
            [plain(rows[group, given, method, metric]) for metric in METRICS],
        )
        for group, given in dict.fromkeys(key[:2] for key in rows if key[0] in (ONE, ALL))
        for method in methods_of(results)
        if method != EMPTY or group == ALL
    ]


def plain(row: Row | None, colour: str = "") -> Cell:
    """A mean with its interval."""
    if row is None or row.mean is None:
        return Cell("–")
    empty = f", truth and output both empty in {row.n_empty}, one in {row.n_one_empty}" if row.metric in NAMES else ""
    spread = "" if row.std is None else f", ± {number(row.std, row.metric)}"
    return Cell(number(row.mean, row.metric), interval(row), colour, title=f"n = {row.n}{spread}{empty}")


def _ends(rows: Sequence[Row]) -> tuple[float, float]:
    values = [row.mean for row in rows if row.mean is not None]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _colour(row: Row, low: float, high: float) -> str:
    if row.mean is None:
        return ""
    return mix(MODEL, 0.06 + 0.4 * ((row.mean - low) / (high - low) if high > low else 0.5))
