"""The table of what an encoder represents, for one run and for several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medprism.evaluation.representation import REGIONS
from medprism.evaluation.representation.tables import MEASURES, METHODS, SHORT, mean_rows
from medprism.evaluation.results import Results, Row
from medprism.report.runs import Run
from medprism.report.tables import Cell, interval


@dataclass(frozen=True)
class Measure:
    """One measure: z and x_h of the model, z and x_h of the untrained network, chance."""

    name: str
    cells: list[Cell]
    n: int


COLUMNS = [region if method == "model" else f"{region} {method}" for method in METHODS for region in REGIONS]
COLUMNS.append("chance")


def measures(results: Results) -> list[Measure]:
    """All measures, mean over pairs or modalities."""
    rows = mean_rows(results)
    made = []
    for metric, name in MEASURES.items():
        found = [rows.get((metric, region, method)) for method in METHODS for region in REGIONS]
        found.append(rows.get((metric, REGIONS[0], "chance")))
        if any(found):
            made.append(Measure(name, [_cell(row) for row in found], found[0].n if found[0] else 0))
    return made


@dataclass(frozen=True)
class Compared:
    """The representation of one run in the table of runs; a list of cells for z and one for x_h."""

    name: str
    rows: list[tuple[str, list[Cell]]]


NAMES = list(SHORT.values())


def beside(runs: Sequence[Run]) -> list[Compared]:
    """The runs of which the representation was measured."""
    made = []
    for run in runs:
        if run.measured is not None:
            rows = mean_rows(run.measured)
            cells = [(r, [_cell(rows.get((metric, r, "model"))) for metric in SHORT]) for r in REGIONS]
            made.append(Compared(run.name, cells))
    return made


def _cell(row: Row | None) -> Cell:
    if row is None or row.mean is None:
        return Cell("" if row is None else "–")
    ends = interval(row) if row.method == "model" else ""
    return Cell(f"{row.mean:.3f}", ends, dim=row.method != "model")
