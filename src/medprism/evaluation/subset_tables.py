"""The tables of a segmentation evaluation in the terminal, laid out as those of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medprism.evaluation.detection import METRICS
from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_scoring import EMPTY, METHODS
from medprism.evaluation.subsets import ALL, ONE, OVER_REGIONS, WITHOUT_FULL, missing, spelled
from medprism.evaluation.tables import number, plain_table, print_head

NAMES = {"dice": "Dice ↑", "hd95": "HD95 mm ↓"}
DETECTION_NAMES = dict(
    zip(
        METRICS,
        ("DICE ↑", "DICE- ↑", "TPR ↑", "TNR ↑", "FNR ↓", "FPR ↓", "FP ml ↓", "FN ml ↓", "DICE, TN 0 ↑"),
        strict=True,
    )
)
GIVEN, ABSENT = "●", "○"


def print_segmentation(results: Results, console: Console) -> None:
    """Print means over subsets (Table 3), every subset (Table 11) and, if scored, detection (Tables 6 to 8)."""
    head = results.head
    of = f"{len(head['subsets'])} subsets of {len(head['modalities'])} modalities"
    print_head("segmentation", head, console, f", {of}")
    if leak := head.get("leak"):
        console.print(leak, style="bold red")
    if fill := head.get("fill"):
        console.print(fill)
    for metric in NAMES:
        console.print(means_table(results, metric))
    for method in methods_of(results):
        if method != EMPTY:
            console.print(subset_table(results, method))
    if head["detection"]:
        for region in head["regions"]:
            console.print(detection_table(results, region))
        console.print(
            "DICE leaves true negatives out; FP and FN ml: volume of components that touch nothing", style="dim"
        )
    console.print(told_of_empty(results), style="dim")


def methods_of(results: Results) -> list[str]:
    """The methods that were scored, in the order in which they are shown."""
    own = {row.method for row in results.rows}
    return [method for method in METHODS if method in own]


def regions_of(results: Results) -> list[str]:
    """The regions to show: the named ones, and their mean where there are several."""
    names = list(results.head["regions"])
    return [*names, OVER_REGIONS] if len(names) > 1 else names


def columns_of(results: Results) -> list[tuple[str, str]]:
    """The columns of means over subsets as (title, group); the full set is group `subset`."""
    lacking = range(1, len(results.head["modalities"]))
    groups = [(ALL, "all subsets"), (WITHOUT_FULL, "without full"), (ONE, "full")]
    groups += [(missing(count), f"{count} missing") for count in lacking]
    own = {row.group for row in results.rows if row.group != ONE}
    full = any(len(row.given) == len(lacking) + 1 for row in results.select(group=ONE))
    return [(title, group) for group, title in groups if group in own or (group == ONE and full)]


def mean_row(results: Results, method: str, region: str, metric: str, group: str) -> Row | None:
    """The row of a mean over subsets, or of the full set for group `subset`."""
    rows = results.select(method=method, region=region, metric=metric, group=group)
    if group == ONE:
        rows = [row for row in rows if len(row.given) == len(results.head["modalities"])]
    return rows[0] if rows else None


def means_table(results: Results, metric: str) -> Table:
    """Table 3 of the paper: a section for each region, means and standard deviations over subsets."""
    table = plain_table(f"{NAMES[metric]}: means over subsets ± standard deviation over subsets")
    columns = columns_of(results)
    for title in ("region", "method", *(title for title, _ in columns)):
        table.add_column(title, justify="left" if title in ("region", "method") else "right", no_wrap=True)
    for region in regions_of(results):
        for method in methods_of(results):
            rows = [(group, mean_row(results, method, region, metric, group)) for _, group in columns]
            cells = [_cell(row, spread=group != ONE) for group, row in rows]
            style = "" if method == METHODS[0] else "dim"
            table.add_row(region if method == METHODS[0] else "", Text(method, style), *cells, style=style)
        table.add_section()
    return table


def dotted_table(about: str, modalities: Sequence[str], titles: Sequence[str]) -> Table:
    """A table without lines yet: a narrow column for each modality, whose dots tell the lines apart, then numbers."""
    table = plain_table(about)
    for name in modalities:  # they stay, however narrow the terminal
        table.add_column(name, justify="center", no_wrap=True, min_width=len(name))
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def subset_table(results: Results, method: str) -> Table:
    """Table 11 of the paper: a line for each subset, dots for what is given, Dice with its interval, and HD95."""
    names, regions = results.head["modalities"], regions_of(results)
    titles = ("n", *(f"{region}\n{title}" for region in regions for title in NAMES.values()))
    table = dotted_table(f"{method}: every subset, mean [95 % interval by person]", names, titles)
    rows = {(row.given, row.region, row.metric): row for row in results.select(method=method, group=ONE)}
    before = 1
    for given in dict.fromkeys(given for given, _, _ in rows):
        if len(given) != before:
            table.add_section()
        before = len(given)
        own = [(rows[given, region, "dice"], rows[given, region, "hd95"]) for region in regions]
        cells = [text for dice, distance in own for text in (interval(dice), number(distance.mean, "hd95"))]
        table.add_row(*dots(given, names), str(own[0][0].n), *cells)
    return table


def detection_table(results: Results, region: str) -> Table:
    """Tables 6 to 8 of the paper, the challenge's volumes added: a line for each subset and method."""
    table = plain_table(f"{region}: scans with and without")
    for title in ("given", "method", *DETECTION_NAMES.values()):
        table.add_column(title, justify="left" if title in ("given", "method") else "right", no_wrap=True)
    rows = {(r.group, r.given, r.method, r.metric): r for r in results.select(region=region) if r.metric in METRICS}
    for group, given in dict.fromkeys(key[:2] for key in rows if key[0] in (ONE, ALL)):
        for method in methods_of(results):
            if method == EMPTY and group == ONE:
                continue  # the same for every subset
            cells = [number(rows[group, given, method, metric].mean, metric) for metric in METRICS]
            name = spelled(given) or "mean over subsets"
            style = "" if method == METHODS[0] else "dim"
            table.add_row(name if method == METHODS[0] else "", Text(method, style), *cells, style=style)
        table.add_section()
    return table


def dots(given: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """A full dot for each modality that is given, an empty one for each that is not."""
    return [GIVEN if name in given else ABSENT for name in modalities]


def told_of_empty(results: Results) -> str:
    """How often a rule for empty regions decided, in words."""
    row = mean_row(results, METHODS[0], OVER_REGIONS, "dice", ALL)
    if row is None or not (row.n_empty or row.n_one_empty):
        return "no region was empty in truth or output"
    scored = results.select(method=METHODS[0], region=OVER_REGIONS, metric="dice", group=ONE)
    cases = len(results.head["regions"]) * sum(row.n for row in scored)
    return (
        f"of {cases} cases (subject, subset, region) truth and output are both empty in {row.n_empty} (Dice 1, HD95 0) "
        f"and one of them in {row.n_one_empty} (Dice 0, HD95 the volume's diagonal)"
    )


def interval(row: Row) -> str:
    """The mean and, on a line of its own, its interval."""
    if row.ci95 is None:
        return number(row.mean, row.metric)
    low, high = (number(end, row.metric) for end in row.ci95)
    return f"{number(row.mean, row.metric)}\n[{low}, {high}]"


def _cell(row: Row | None, *, spread: bool) -> str:
    if row is None:
        return "–"
    return number(row.mean, row.metric) + (f" ±{number(row.std, row.metric)}" if spread and row.std is not None else "")
