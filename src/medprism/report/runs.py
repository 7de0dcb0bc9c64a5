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
from medprism.evaluation.results import METRICS, Results, Score, read_scores

Log = dict[str, list[tuple[float, float]]]
"""Curve name -> (epoch, value) points."""


@dataclass
class Run:
    """One evaluated (or only trained) model.

    Attributes:
        name: of its folder.
        results: the tables, or None.
        scores: values of single subjects.
        card: of the model.
        log: training curves.
        subjects: rows of subjects.csv.
        slices: file, or None.
        representation: file, or None.
        missing: what there is not, in words.
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
    for run, path in zip(runs, resolved, strict=True):
        if path.name == "evaluation" or sum(other.name == path.name for other in resolved) > 1:
            run.name = f"{path.parent.name}/{path.name}" if path.name != "evaluation" else path.parent.name
    return _joined(runs)


def _joined(runs: list[Run]) -> list[Run]:
    """A training run and the evaluation of its model are one run, if both were given."""
    trained = {run.card["sha256"]: run for run in runs if run.results is None and run.card.get("sha256")}
    for run in runs:
        origin = trained.get(run.results.head.get("model_hash")) if run.results is not None else None
        if origin is not None:
            run.name, run.log = origin.name, run.log or origin.log
            if run.log and "training log" in run.missing:
                run.missing.remove("training log")
    evaluated = {run.results.head.get("model_hash") for run in runs if run.results is not None}
    return [run for run in runs if run.results is not None or run.card.get("sha256") not in evaluated]


def _read(path: Path) -> Run:
    if not path.is_dir():
        raise UserError(f"expected a run or evaluation folder, got {path}; name the --out of evaluate or pretrain")
    evaluation = next((place for place in (path, path / "evaluation") if (place / METRICS).is_file()), None)
    logs = [place for place in ((evaluation or path) / "log.csv", path / "metrics.csv") if place.is_file()]
    if evaluation is None and not logs:
        raise UserError(f"expected {METRICS} or metrics.csv in {path}, got neither; run `medprism evaluate` first")
    place = evaluation or path
    cards = [card for card in (place / "model.json", path / "model" / "model.json") if card.is_file()]
    run = Run(
        name=path.name,
        results=None if evaluation is None else Results.read(evaluation),
        scores=[] if evaluation is None else read_scores(evaluation),
        card=json.loads(cards[0].read_text(encoding="utf-8")) if cards else {},
        log=read_log(logs[0]) if logs else {},
        subjects=_read_csv(place / "subjects.csv"),
        slices=_existing(place / "slices.npz"),
        representation=_existing(place / "representation.npz"),
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
