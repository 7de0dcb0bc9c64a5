"""The tables of the page, ready to be laid out: heat maps, means beside rivals, runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medprism.evaluation.comparison import Verdict, verdict, worst_verdict
from medprism.evaluation.metrics import HIGHER_IS_BETTER
from medprism.evaluation.results import Results, Row
from medprism.evaluation.rivals import RIVALS
from medprism.evaluation.statistics import Bootstrap
from medprism.evaluation.summaries import MEAN
from medprism.evaluation.tables import ARROWS, HEADLINE, METHODS, NAMES, number
from medprism.report.runs import Run
from medprism.report.style import MODEL

BETTER, WORSE = MODEL, "#c0392b"
REGIONS = ("foreground", "volume")


@dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
        text: the mean.
        below: its spread or interval, or nothing.
        colour: background, or nothing.
        verdict: against the rivals, or None.
        title: what a pointer resting on it is told.
        dim: not part of the means.
    """

    text: str
    below: str = ""
    colour: str = ""
    verdict: Verdict | None = None
    title: str = ""
    dim: bool = False


@dataclass(frozen=True)
class Square:
    """Sources down, targets across."""

    title: str
    targets: list[str]
    rows: list[tuple[str, list[Cell]]]


def squares(results: Results, protocol: str, metric: str) -> list[Square]:
    """The model's means and its differences to each rival, as heat maps of equal layout."""
    names, region = results.head["modalities"], HEADLINE[protocol]
    rows = {
        (row.method, row.given[0], row.target): row
        for row in results.select(protocol=protocol, region=region, metric=metric)
        if len(row.given) == 1
    }
    made = [_square(rows, names, "model", f"{NAMES[metric]} {ARROWS[metric]}, model")]
    for rival in reversed(RIVALS):
        if any(method == f"model-{rival}" for method, _, _ in rows):
            made.append(_square(rows, names, f"model-{rival}", f"model − {rival}"))
    return made


def _square(rows: dict[tuple[str, str, str | None], Row], names: list[str], method: str, title: str) -> Square:
    own = {(s, t): row for (m, s, t), row in rows.items() if m == method and row.mean is not None}
    off = [row.mean for (s, t), row in own.items() if s != t and row.mean is not None]
    low, high = (min(off), max(off)) if off else (0.0, 0.0)
    lines = []
    for source in names:
        cells = []
        for target in names:
            row = own.get((source, target))
            if row is None or row.mean is None:
                cells.append(Cell("" if source == target else "–"))
            elif method == "model":
                part = (row.mean - low) / (high - low) if high > low else 0.5
                part = part if row.metric in HIGHER_IS_BETTER else 1 - part
                word = worst_verdict([r for rival in RIVALS if (r := rows.get((f"model-{rival}", source, target)))])
                colour = "" if source == target else mix(BETTER, 0.08 + 0.42 * min(max(part, 0), 1))
                spread = "" if row.std is None else f"± {number(row.std, row.metric)}"
                cells.append(Cell(number(row.mean, row.metric), spread, colour, word, _told(row), source == target))
            else:
                part = abs(row.mean) / max(abs(low), abs(high), 1e-12)
                word = verdict(row)
                colour = mix(WORSE if word == "loses" else BETTER, 0.06 + 0.5 * part)
                cells.append(Cell(signed(row.mean, row.metric), _narrow(row), colour, word, _told(row)))
        lines.append((source, cells))
    return Square(title, names, lines)


@dataclass(frozen=True)
class Line:
    """One metric: the model, its rivals, and the paired differences."""

    metric: str
    region: str
    model: Cell
    rivals: list[Cell]
    differences: list[Cell]
    n: int


def means(results: Results, protocol: str, group: str = MEAN) -> list[Line]:
    """The means of a group of pairs, for each metric and region."""
    rows = {(row.region, row.metric, row.method): row for row in results.select(protocol=protocol, group=group)}
    lines = []
    for region in REGIONS:
        for metric in NAMES:
            model = rows.get((region, metric, "model"))
            if model is not None:
                rivals = [rows.get((region, metric, rival)) for rival in RIVALS]
                differences = [rows.get((region, metric, f"model-{rival}")) for rival in RIVALS]
                lines.append(
                    Line(
                        f"{NAMES[metric]} {ARROWS[metric]}",
                        region,
                        Cell(number(model.mean, metric), interval(model), title=_told(model)),
                        [Cell("–") if r is None else Cell(number(r.mean, metric), interval(r)) for r in rivals],
                        [_difference(r) for r in differences],
                        model.n,
                    )
                )
    return lines


def groups(results: Results, protocol: str) -> list[tuple[str, Line]]:
    """PSNR of every other group: each target, each kind to each kind, all others given, with the diagonal."""
    names = dict.fromkeys(row.group for row in results.select(protocol=protocol, metric="psnr", method="model"))
    found = []
    for group in names:
        if group not in ("pair", "diagonal", MEAN):
            lines = [line for line in means(results, protocol, group) if line.region == HEADLINE[protocol]]
            found += [("all others given" if group == "rest" else group, line) for line in lines[:1]]
    return found


@dataclass(frozen=True)
class Long:
    """The layout of the paper's Table 10: mean and standard deviation for each source, method and target."""

    metrics: list[str]
    targets: list[str]
    rows: list[tuple[str, str, list[Cell]]]


def long_table(results: Results, protocol: str) -> Long:
    """Every pair and method, PSNR, NMSE and SSIM in the protocol's first region."""
    names, metrics = results.head["modalities"], ("psnr", "nmse", "ssim")
    rows = {
        (row.given[0], row.method, row.target, row.metric): row
        for row in results.select(protocol=protocol, region=HEADLINE[protocol])
        if len(row.given) == 1
    }
    lines = []
    for source in names:
        for method in METHODS:
            found = [rows.get((source, method, target, metric)) for target in names for metric in metrics]
            if any(found):
                lines.append((source, method, [_plain(row) for row in found]))
    return Long([f"{NAMES[m]} {ARROWS[m]}" for m in metrics], names, lines)


@dataclass(frozen=True)
class Compared:
    """One run in the table of runs."""

    name: str
    cells: list[Cell]
    difference: Cell
    seed: int
    split_hash: str
    comparable: bool


def compare(runs: Sequence[Run], protocol: str) -> list[Compared]:
    """Runs beside each other; PSNR also as paired difference to the first one, on the subjects that both scored."""
    first = runs[0]
    made = []
    for run in runs:
        if run.results is None:
            continue
        lines = [line for line in means(run.results, protocol) if line.region == HEADLINE[protocol]]
        same = first.results is not None and first.results.head["split_hash"] == run.results.head["split_hash"]
        made.append(
            Compared(
                name=run.name,
                cells=[line.model for line in lines[:3]] + [lines[0].differences[-1] if lines else Cell("–")],
                difference=Cell("–") if run is first or not same else _paired(run, first, protocol),
                seed=run.results.head["seed"],
                split_hash=run.results.head["split_hash"][:12],
                comparable=same,
            )
        )
    return made


def _paired(run: Run, other: Run, protocol: str) -> Cell:
    """PSNR of a run minus that of another one, by person."""
    own, theirs = (_subject_means(each, protocol) for each in (run, other))
    both = [subject for subject in own if subject in theirs]
    person = {score.subject: score.person for score in run.scores}
    summary = Bootstrap([person[s] for s in both]).summary([own[s] - theirs[s] for s in both])
    row = Row(protocol, MEAN, "run-run", (), None, HEADLINE[protocol], "psnr", **vars(summary))
    return _difference(row)


def _subject_means(run: Run, protocol: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for s in run.scores:
        kind = (s.protocol, s.method, s.region, s.metric)
        wanted = kind == (protocol, "model", HEADLINE[protocol], "psnr")
        if wanted and len(s.given) == 1 and s.given != (s.target,) and s.value == s.value:
            values.setdefault(s.subject, []).append(s.value)
    return {subject: sum(column) / len(column) for subject, column in values.items()}


def _difference(row: Row | None) -> Cell:
    if row is None or row.mean is None:
        return Cell("–")
    return Cell(signed(row.mean, row.metric), interval(row), verdict=verdict(row), title=_told(row))


def _plain(row: Row | None) -> Cell:
    if row is None:
        return Cell("")
    spread = "" if row.std is None else f"± {number(row.std, row.metric)}"
    return Cell(number(row.mean, row.metric), spread, dim=row.group == "diagonal")


def interval(row: Row) -> str:
    """The 95 % interval in brackets, or nothing."""
    return "" if row.ci95 is None else f"[{number(row.ci95[0], row.metric)}, {number(row.ci95[1], row.metric)}]"


def _narrow(row: Row) -> str:
    """The interval for a narrow cell: without brackets and leading zeros."""
    ends = (number(end, row.metric) for end in row.ci95 or ())
    return ", ".join(end.replace("0.", ".") if end.lstrip("−").startswith("0.") else end for end in ends)


def signed(value: float, metric: str) -> str:
    """A difference, always with its sign."""
    text = number(abs(value), metric)
    return f"{'+' if value >= 0 else '−'}{text}"


def mix(colour: str, part: float, ground: Literal["#ffffff"] = "#ffffff") -> str:
    """A colour thinned with white: `part` 1 is the colour, 0 is white."""
    channels = [round(int(ground[k : k + 2], 16) * (1 - part) + int(colour[k : k + 2], 16) * part) for k in (1, 3, 5)]
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _told(row: Row) -> str:
    empty = f", {row.n_empty} without a value" if row.n_empty else ""
    return f"n = {row.n}{empty}" + (f", 95 % interval {interval(row)}" if row.ci95 else "")
