"""What a report is made from: the folders of evaluations and runs. What is missing is said, not hidden."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medprism.errors import UserError
from medprism.evaluation.representation import TASK
from medprism.evaluation.results import METRICS, Results, Score, read_scores

PICTURE = "templates.png"
"""In the folder of a run that trains templates."""

Log = dict[str, list[tuple[float, float]]]
"""Curve name -> (epoch, value) points."""


@dataclass
class Run:
    """One evaluated (or only trained) model.

    Attributes:
        name: of its folder.
        results: the tables of its task, or None.
        scores: values of single subjects.
        card: of the model.
        log: training curves.
        subjects: rows of subjects.csv.
        slices: file, or None.
        representation: file, or None.
        missing: what there is not, in words.
        measured: the tables of `evaluate --representation`, or None.
        templates: picture of how the templates came about, of runs that train some, or None.
    """

    name: str
    results: Results | None
    scores: list[Score]
    card: Mapping[str, Any]
    log: Log
    subjects: list[dict[str, str]]
    slices: Path | None
    representation: Path | None
    missing: list[str] = field(default_factory=list)
    measured: Results | None = None
    templates: Path | None = None

    @property
    def model(self) -> str | None:
        """SHA-256 of the weights that were evaluated, else of those in the folder."""
        heads = [each.head for each in (self.results, self.measured) if each is not None]
        sha256: str | None = heads[0].get("model_hash") if heads else self.card.get("sha256")
        return sha256


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read runs, each under a name of its own.

    Args:
        paths: folders of `evaluate`, or of training runs that hold such a folder (`evaluation`) or none.

    Raises:
        UserError: no path, or a folder that is neither.
    """
    if not paths:
        raise UserError("expected at least one run or evaluation folder, got none; name one")
    resolved = [Path(path).resolve() for path in paths]
    runs = [_read(path) for path in resolved]
    places = [path.parent if path.name in ("evaluation", TASK) else path for path in resolved]
    for run, place in zip(runs, places, strict=True):
        run.name = _own_name(place, places)
    return _joined(runs)


def _own_name(place: Path, places: Sequence[Path]) -> str:
    """The end of a path, as long as it takes to tell it from the others, such as `no-prior/seed-0`."""
    others = {other.parts for other in places} - {place.parts}
    long = next((n for n in range(1, len(place.parts)) if place.parts[-n:] not in {o[-n:] for o in others}), 1)
    return "/".join(place.parts[-long:])


def _joined(runs: list[Run]) -> list[Run]:
    """What is of one model is one run: its training, its evaluation, and what its encoder represents."""
    evaluated = [run for run in runs if run.results is not None]
    for run in runs:
        if run.results is None and run.measured is not None:
            for other in _of_model(evaluated, run):
                other.measured, other.representation = run.measured, run.representation
                other.missing = [part for part in other.missing if part != "representation"]
    whole = [run for run in runs if run.results or (run.measured and not _of_model(evaluated, run))]
    trained = [run for run in runs if run.results is None and run.measured is None]
    for origin in trained:
        for run in _of_model(whole, origin):
            run.name, run.log = origin.name, run.log or origin.log
            run.templates = run.templates or origin.templates
            run.missing = [part for part in run.missing if part != "training log" or not run.log]
    return [run for run in runs if run in whole or (run in trained and not _of_model(whole, run))]


def _of_model(runs: Sequence[Run], run: Run) -> list[Run]:
    """Those of the same weights."""
    return [other for other in runs if run.model is not None and other.model == run.model]


def _read(path: Path) -> Run:
    if not path.is_dir():
        raise UserError(f"expected a run or evaluation folder, got {path}; name the --out of evaluate or pretrain")
    evaluation, measured = (_evaluation(path, task) for task in ("evaluation", TASK))
    place = evaluation or measured or path
    logs = [log for log in (place / "log.csv", path / "metrics.csv") if log.is_file()]
    if place == path and not logs and not (evaluation or measured):
        raise UserError(f"expected {METRICS} or metrics.csv in {path}, got neither; run `medprism evaluate` first")
    cards = [card for card in (place / "model.json", path / "model" / "model.json") if card.is_file()]
    run = Run(
        name=path.name,
        results=None if evaluation is None else Results.read(evaluation),
        scores=[] if evaluation is None else read_scores(evaluation),
        card=json.loads(cards[0].read_text(encoding="utf-8")) if cards else {},
        log=read_log(logs[0]) if logs else {},
        subjects=_read_csv(place / "subjects.csv"),
        slices=_existing(place / "slices.npz"),
        representation=_existing((measured or place) / "representation.npz"),
        measured=None if measured is None else Results.read(measured),
        templates=_existing((path.parent if path in (evaluation, measured) else path) / PICTURE),
    )
    parts = {
        "evaluation": run.results,
        "model card": run.card,
        "training log": run.log,
        "list of subjects": run.subjects,
        "slices": run.slices,
        "representation": run.representation,
    }
    run.missing = [name for name, part in parts.items() if not part]
    return run


def _evaluation(path: Path, name: str) -> Path | None:
    """A folder, or the one of this name in it, that holds an evaluation: of a task, or of the representation."""
    for place in (path, path / name):
        if (place / METRICS).is_file() and (Results.read(place).head.get("task") == TASK) == (name == TASK):
            return place
    return None


def read_log(path: Path) -> Log:
    """Curves of a metrics.csv; blank cells and columns without numbers are left out.

    Several rows of one epoch (steps, or training and validation apart) become one point, the last one.
    """
    curves: dict[str, dict[float, float]] = {}
    for number, row in enumerate(_read_csv(path)):
        epoch = _number(row.get("epoch"), default=float(number))
        for name, cell in row.items():
            value = _number(cell)
            if name not in ("epoch", "step") and math.isfinite(value):
                curves.setdefault(name, {})[epoch] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(cell: str | None, default: float = math.nan) -> float:
    try:
        return float(cell) if cell else default
    except (TypeError, ValueError):
        return default


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
