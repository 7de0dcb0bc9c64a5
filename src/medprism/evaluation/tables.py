"""The tables of a transfer evaluation in the terminal, rivals beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medprism.evaluation.comparison import Verdict, caution, verdict, worst_verdict
from medprism.evaluation.protocols import LEAK
from medprism.evaluation.results import Results, Row
from medprism.evaluation.rivals import RIVALS
from medprism.evaluation.summaries import MEAN

METHODS = ("model", *RIVALS)
METRICS = ("psnr", "ssim", "nmse")
NAMES = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "nmse": "NMSE",
    "mae": "MAE",
    "mae_hu": "MAE HU",
    "mae_suv": "MAE SUV",
}
"""Metrics in the order and under the names in which they are shown."""

ARROWS = {metric: "↑" if metric in ("psnr", "ssim") else "↓" for metric in NAMES}
HEADLINE = {"strict": "foreground", "paper": "volume"}
"""The region that comes first under each protocol."""

_DIGITS = {"psnr": 2, "mae_hu": 1, "hd95": 1, "truth_ml": 1, "output_ml": 1, "fpv_ml": 1, "fnv_ml": 1}  # others: 3

_STYLE: dict[Verdict | None, str] = {"wins": "green", "level": "yellow", "loses": "bold red", None: ""}
_MARK: dict[Verdict | None, str] = {"wins": "", "level": " ≈", "loses": " ✗", None: ""}


def print_transfer(results: Results, console: Console) -> None:
    """Print, for each protocol, source × target tables of PSNR, SSIM and NMSE and the means beside the rivals'."""
    head = results.head
    for protocol in str(head["protocol"]).split("+"):
        print_head(f"{protocol} protocol", head, console)
        if protocol == "paper":
            console.print(LEAK, style="red")
        for metric in METRICS:
            console.print(_square(results, protocol, metric))
        console.print(_means(results, protocol))
    console.print("✗ loses to a rival   ≈ no better than a rival beyond its 95 % interval", style="dim")


def print_head(title: str, head: Mapping[str, Any], console: Console, more: str = "") -> None:
    """Print the line above the tables of any evaluation, and a warning where the split was not for testing."""
    console.print()
    console.print(
        f"[bold]{title}[/bold], {head['split']} split, {head['subjects']} subjects, {head['persons']} persons{more}"
    )
    if warning := caution(head["split"]):
        console.print(warning, style="bold red")


def number(value: float | None, metric: str) -> str:
    """A value with the digits that its metric deserves."""
    if value is None:
        return "–"
    return f"{value:.{_DIGITS.get(metric, 3)}f}".replace("-", "−")


def _square(results: Results, protocol: str, metric: str) -> Table:
    """Sources down, targets across (of one source their mean too), mean ± std; one line for each method."""
    region, names = HEADLINE[protocol], results.head["modalities"]
    rows = {
        (row.method, row.given[0], row.target): row
        for row in results.select(protocol=protocol, region=region, metric=metric)
        if len(row.given) == 1
    }
    sources, targets = ([name for name in names if any(name == key[k] for key in rows)] for k in (1, 2))
    if len(sources) == 1 and len(targets) > 1:  # the paper's Table 5
        means = results.select(protocol=protocol, region=region, metric=metric, group=MEAN)
        rows |= {(row.method, sources[0], "mean"): row for row in means}
        targets.append("mean")
    table = plain_table(f"{NAMES[metric]} {ARROWS[metric]}, {region}, mean ± standard deviation over subjects")
    for title in ("given", "method", *targets):
        table.add_column(title, justify="left" if title in ("given", "method") else "right", no_wrap=True)
    for source in sources:
        for method in METHODS:
            cells = [_cell(rows, method, source, target) for target in targets]
            if any(cell.plain for cell in cells):
                table.add_row(source if method == "model" else "", Text(method, _dim(method)), *cells)
        table.add_section()
    return table


def _cell(rows: dict[tuple[str, str, str | None], Row], method: str, source: str, target: str) -> Text:
    row = rows.get((method, source, target))
    if row is None:
        return Text("")
    text = number(row.mean, row.metric) + ("" if row.std is None else f"±{number(row.std, row.metric)}")
    if source == target:
        return Text(f"({text})", "dim")
    if method != "model":
        return Text(text, "dim")
    word = worst_verdict([rows[key] for rival in RIVALS if (key := (f"model-{rival}", source, target)) in rows])
    return Text(text + _MARK[word], _STYLE[word])


def _means(results: Results, protocol: str) -> Table:
    """Means over all pairs with intervals, the rivals', and the paired differences."""
    table = plain_table("mean over pairs, source ≠ target; paired differences model − rival [95 % interval by person]")
    for title in ("metric", *METHODS, *(f"− {rival}" for rival in RIVALS)):
        table.add_column(title, justify="left" if title == "metric" else "right", no_wrap=True)
    rows = {(r.region, r.metric, r.method): r for r in results.select(protocol=protocol, group=MEAN)}
    for region in ("foreground", "volume"):
        for metric in NAMES:
            model = rows.get((region, metric, "model"))
            if model is None:
                continue
            cells = [Text(_interval(model))]
            cells += [
                Text(number(r.mean, metric) if (r := rows.get((region, metric, m))) else "–", "dim") for m in RIVALS
            ]
            for rival in RIVALS:
                difference = rows.get((region, metric, f"model-{rival}"))
                word = None if difference is None else verdict(difference)
                cells.append(Text(_interval(difference, _MARK[word]), _STYLE[word]))
            table.add_row(f"{NAMES[metric]} {ARROWS[metric]}\n{region}", *cells)
    return table


def _interval(row: Row | None, mark: str = "") -> str:
    """Mean and, on a line of its own, its interval."""
    if row is None:
        return "–"
    mean = number(row.mean, row.metric) + mark
    if row.ci95 is None:
        return mean
    low, high = (number(end, row.metric) for end in row.ci95)
    return f"{mean}\n[{low}, {high}]"


def plain_table(title: str) -> Table:
    """An empty table without lines, its title above."""
    return Table(title=title, title_justify="left", title_style="italic", box=SIMPLE_HEAD, padding=0, pad_edge=False)


def _dim(method: str) -> str:
    return "" if method == "model" else "dim"
