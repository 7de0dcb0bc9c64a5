"""The table of a classification evaluation in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_tables import columns_of, dots, dotted_table, interval
from medprism.evaluation.subsets import ALL, ONE
from medprism.evaluation.tables import number, plain_table, print_head

NAMES = {"acc": "ACC ↑", "balanced_acc": "balanced ACC ↑", "auc": "AUC ↑", "f1": "F1 ↑"}


def print_classification(results: Results, console: Console) -> None:
    """Print every subset and the means over subsets, the rival beside the model."""
    head = results.head
    counts = ", ".join(f"{count} {name}" for name, count in head["classes"].items())
    print_head("classification", head, console, f": {counts}")
    if fill := head.get("fill"):
        console.print(fill)
    console.print(subset_table(results))
    console.print(means_table(results))
    console.print("AUC and F1: mean over classes; majority: tells how frequent classes were in training", style="dim")


def subset_table(results: Results) -> Table:
    """A line for each subset: dots for what is given, and each number with its interval."""
    names = results.head["modalities"]
    table = dotted_table("every subset, [95 % interval by person]", names, ("n", *NAMES.values()))
    rows = {(row.given, row.metric): row for row in results.select(method="model", group=ONE)}
    size = 1
    for given in dict.fromkeys(given for given, _ in rows):
        if len(given) != size:
            table.add_section()
        size = len(given)
        own = [rows[given, metric] for metric in NAMES]
        table.add_row(*dots(given, names), str(max(row.n for row in own)), *map(interval, own))
    return table


def means_table(results: Results) -> Table:
    """Means over subsets ± their spread over subsets, the rival below the model; the full set between them."""
    table = plain_table("means over subsets ± standard deviation over subsets")
    for title in ("", "method", *NAMES.values()):
        table.add_column(title, justify="left" if title in ("", "method") else "right", no_wrap=True)
    methods = list(dict.fromkeys(row.method for row in results.select(group=ALL)))
    for title, group in columns_of(results):
        for method in methods:
            cells = []
            for metric in NAMES:
                row = mean_row(results, method, metric, group)
                spread = f" ±{number(row.std, metric)}" if row is not None and row.std is not None else ""
                cells.append("–" if row is None else number(row.mean, metric) + spread)
            style = "" if method == "model" else "dim"
            table.add_row(title if method == "model" else "", Text(method, style), *cells, style=style)
        table.add_section()
    return table


def mean_row(results: Results, method: str, metric: str, group: str) -> Row | None:
    """The row of a mean over subsets, or of the full set for group `subset`."""
    rows = results.select(method=method, metric=metric, group=group)
    full = len(results.head["modalities"])
    return next((row for row in rows if group != ONE or len(row.given) == full), None)
