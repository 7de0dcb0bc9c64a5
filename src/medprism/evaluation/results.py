"""metrics.json and per_subject.csv: one tidy table for every task, so that anything can read it.

`metrics.json` says how it was made (task, protocol, split, seed, version, split and model hash, machine, recipe) and
holds `rows`. `per_subject.csv` has the values that the rows are means of, in the same columns.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medprism.errors import UserError
from medprism.io.atomic import whole_file

METRICS, PER_SUBJECT = "metrics.json", "per_subject.csv"


@dataclass(frozen=True)
class Score:
    """One value of one subject; NaN where it has none.

    Attributes:
        protocol: how it was scored.
        method: `model`, or a rival.
        given: the modalities that the method was given, in cohort order.
        target: the modality asked for; None where a task has none.
        region: which voxels.
        metric: which number.
        value: it.
        subject: whose.
        person: who that is.
    """

    protocol: str
    method: str
    given: tuple[str, ...]
    target: str | None
    region: str
    metric: str
    value: float
    subject: str
    person: str


@dataclass(frozen=True)
class Row:
    """One row of the table: a mean over subjects with its bootstrap interval.

    Attributes:
        protocol: how it was scored.
        group: what the row is about: `pair` (one `given` and one `target`), `diagonal` (source = target), `subset` (one
            `given` and no target), or the name of a mean over several pairs or subsets, whose `given` is then empty.
        method: `model`, a rival, or a paired difference such as `model-lookup`.
        given: as in `Score`.
        target: as in `Score`; None in a mean over several targets.
        region: as in `Score`.
        metric: as in `Score`.
        mean: over subjects; None where no subject has a value.
        std: over subjects, or over subsets in a mean over subsets; None of fewer than 2.
        ci95: of the mean, by person; None of fewer than 2 persons.
        n: subjects with a value.
        n_empty: subjects without one. Dice and HD95 always have one: cases (subjects, or subjects times subsets and
            regions in a mean) of which neither truth nor output has the region.
        n_one_empty: cases of which only one of truth and output has the region; of Dice and HD95 alone.
    """

    protocol: str
    group: str
    method: str
    given: tuple[str, ...]
    target: str | None
    region: str
    metric: str
    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    n: int
    n_empty: int
    n_one_empty: int = 0


@dataclass(frozen=True)
class Results:
    """The content of metrics.json.

    Attributes:
        head: all keys but `rows`.
        rows: the table.
    """

    head: Mapping[str, Any]
    rows: tuple[Row, ...]

    def select(self, **keys: object) -> list[Row]:
        """Rows whose fields equal the given ones."""
        return [row for row in self.rows if all(getattr(row, key) == value for key, value in keys.items())]

    def write(self, folder: Path) -> Path:
        """Write metrics.json into a folder, atomically, replacing an older one."""
        path = Path(folder) / METRICS
        content = {**self.head, "rows": [asdict(row) for row in self.rows]}
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
        with whole_file(path) as file:
            file.write((text + "\n").encode())
        return path

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Read metrics.json of a folder.

        Raises:
            UserError: There is none, or it is not such a table.
        """
        path = Path(folder) / METRICS
        if not path.is_file():
            raise UserError(f"expected {METRICS} in {folder}, it is missing; run `medprism evaluate` first")
        try:
            head = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(_row(row) for row in head.pop("rows"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"expected a table of results in {path}, got {error!r}; evaluate again") from error
        return cls(head, rows)


def write_scores(scores: Iterable[Score], folder: Path) -> Path:
    """Write per_subject.csv into a folder, atomically, replacing an older one.

    Several given modalities are joined by `+`; a value that does not exist is empty.
    """
    path = Path(folder) / PER_SUBJECT
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Score))
    for score in scores:
        values = asdict(score) | {"given": "+".join(score.given), "target": score.target or ""}
        values["value"] = repr(float(score.value)) if score.value == score.value else ""
        writer.writerow(values.values())
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def read_scores(folder: Path) -> list[Score]:
    """Read per_subject.csv of a folder; the inverse of `write_scores`.

    Raises:
        UserError: There is none, or it is not such a table.
    """
    path = Path(folder) / PER_SUBJECT
    if not path.is_file():
        raise UserError(f"expected {PER_SUBJECT} in {folder}, it is missing; run `medprism evaluate` first")
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [_score(row) for row in csv.DictReader(file)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"expected a table of scores in {path}, got {error!r}; evaluate again") from error


def machine() -> dict[str, str | int]:
    """What the numbers were computed on, without anything that names the machine."""
    about: dict[str, str | int] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
    }
    for package in ("torch", "monai", "numpy", "scikit-image"):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            continue
    return about


def _row(values: dict[str, Any]) -> Row:
    ci95: Sequence[float] | None = values["ci95"]
    return Row(**{**values, "given": tuple(values["given"]), "ci95": None if ci95 is None else (ci95[0], ci95[1])})


def _score(values: dict[str, str]) -> Score:
    return Score(
        **{key: values[key] for key in ("protocol", "method", "region", "metric", "subject", "person")},
        given=tuple(values["given"].split("+")) if values["given"] else (),
        target=values["target"] or None,
        value=float(values["value"] or "nan"),
    )
