"""The representation in the terminal: each measure before and after the prior, beside the untrained network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from medprism.evaluation.representation import MEAN, REGIONS
from medprism.evaluation.results import Results, Row
from medprism.evaluation.tables import print_head

MEASURES = {
    "modality_gap": "modality gap ↓",
    "modality_distance": "modalities : persons, distance ↓",
    "retrieval_top1": "same crop found, top-1 ↑",
    "retrieval_mrr": "same crop found, MRR ↑",
    "person_top1": "same person found, top-1 ↑",
    "person_mrr": "same person found, MRR ↑",
    "modality_accuracy": "modality told by a linear classifier ↓",
    "rotation_accuracy": "rotation told by a linear classifier ↑",
    "equivariance_error": "error of the turned map ↓",
}
"""Measures in the order and under the names in which they are shown; arrows say what the method is after."""

SHORT = {
    "modality_gap": "gap ↓",
    "modality_distance": "distance ↓",
    "retrieval_top1": "crop found ↑",
    "person_top1": "person found ↑",
    "modality_accuracy": "modality told ↓",
    "rotation_accuracy": "rotation told ↑",
    "equivariance_error": "turned map ↓",
}
"""What models are compared by."""

METHODS = ("model", "untrained")


def print_representation(results: Results, console: Console) -> None:
    """Print every measure, mean over pairs or modalities, and some for each pair."""
    head = results.head
    crops = f"{head['crops']} crops of {'×'.join(map(str, head['patch_size']))} voxels"
    print_head("representation", head, console, f", {crops}")
    console.print(_means(results))
    if len(head["modalities"]) > 2:
        console.print(_pairs(results))


def comparison(results: Mapping[str, Sequence[Results]]) -> Table:
    """Models beside each other: mean over their seeds, and the spread where there are several.

    Args:
        results: by name, the evaluations of one model with each seed.
    """
    table = _table("representation, mean over pairs or modalities; z before the prior, x_h after it", "variant")
    for title in ("", *SHORT.values()):
        table.add_column(title, justify="right", no_wrap=True)
    for name, seeds in results.items():
        rows = [mean_rows(one) for one in seeds]
        for region in REGIONS:
            cells = []
            for metric in SHORT:
                found = [row for each in rows if (row := each.get((metric, region, "model")))]
                values = [row.mean for row in found if row.mean is not None]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.3f}{spread}" if values else "–")
            table.add_row(name if region == REGIONS[0] else "", region, *cells)
        table.add_section()
    return table


def value(row: Row | None, interval: bool = False) -> str:
    """The mean of a row, with its 95 % interval on a line of its own if wanted."""
    if row is None or row.mean is None:
        return "–"
    ends = f"\n[{row.ci95[0]:.2f}, {row.ci95[1]:.2f}]" if interval and row.ci95 is not None else ""
    return f"{row.mean:.3f}{ends}"


def mean_rows(results: Results) -> dict[tuple[str, str, str], Row]:
    """The rows of the means, by metric, region and method."""
    return {(row.metric, row.region, row.method): row for row in results.select(group=MEAN)}


def _means(results: Results) -> Table:
    rows = mean_rows(results)
    table = _table(
        "mean over pairs or modalities [95 % interval by person]; z before the prior, x_h after it", "measure"
    )
    for title in (*REGIONS, *(f"{region} untrained" for region in REGIONS), "chance", "n"):
        table.add_column(title, justify="right", no_wrap=True)
    for metric, name in MEASURES.items():
        found = [rows.get((metric, region, method)) for method in METHODS for region in REGIONS]
        if any(found):
            cells = [value(row, interval=number < len(REGIONS)) for number, row in enumerate(found)]
            chance = rows.get((metric, REGIONS[0], "chance"))
            table.add_row(name, *cells, value(chance) if chance else "", str(found[0].n if found[0] else 0))
    return table


def _pairs(results: Results) -> Table:
    """x_h for each pair: what is symmetric once, retrieval in both directions."""
    titles = {"modality_gap": "gap", "modality_distance": "distance"}
    ways = {"retrieval_top1": "crop", "person_top1": "person"}
    rows = {
        (row.metric, row.given[0], row.target): row
        for row in results.select(group="pair", method="model", region=REGIONS[-1])
    }
    table = _table("pairs, x_h; top-1 of → and of ←", "pair")
    for title in (*titles.values(), *(f"{title} {way}" for title in ways.values() for way in "→←"), "n"):
        table.add_column(title, justify="right", no_wrap=True)
    for metric, given, target in list(rows):
        if metric == "modality_gap" and target is not None:
            cells = [value(rows.get((each, given, target))) for each in titles]
            for each in ways:
                cells += [value(rows.get((each, given, target))), value(rows.get((each, target, given)))]
            table.add_row(f"{given} – {target}", *cells, str(rows[metric, given, target].n))
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="italic", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column(first, justify="left", no_wrap=True)
    return table
