"""Variants of a configuration beside each other in the terminal: means over seeds, differences to the first one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medprism.evaluation.comparison import averaged, differences
from medprism.evaluation.detection import METRICS
from medprism.evaluation.representation.tables import comparison
from medprism.evaluation.results import Results, Row, Score, read_scores
from medprism.evaluation.subset_tables import DETECTION_NAMES, columns_of, interval, mean_row
from medprism.evaluation.subset_tasks import SUBSET_TASKS, Number
from medprism.evaluation.subsets import ALL, ONE
from medprism.evaluation.summaries import MEAN, summarise
from medprism.evaluation.tables import ARROWS, HEADLINE, number, plain_table
from medprism.evaluation.tables import NAMES as TRANSFER_NAMES

MODEL = "model"


@dataclass(frozen=True)
class Variant:
    """What was measured of one variant.

    Attributes:
        name: its name.
        seeds: the tables of its trainings, one a seed.
        scores: of single subjects, likewise.
    """

    name: str
    seeds: list[Results]
    scores: list[list[Score]]


def print_variants(evaluations: Mapping[str, Sequence[Path]], console: Console) -> None:
    """Print a comparison for each task.

    Args:
        evaluations: by variant, the folders of its evaluations, one a seed; of one split of one cohort.
        console: where the tables go.
    """
    tasks: dict[str, list[Variant]] = {}
    for name, folders in evaluations.items():
        seeds = [Results.read(folder) for folder in folders]
        scores = [read_scores(folder) for folder in folders]
        name = f"{name} (leaks)" if seeds[0].head.get("leak") else name
        tasks.setdefault(seeds[0].head["task"], []).append(Variant(name, seeds, scores))
    for task, variants in tasks.items():
        first = variants[0].seeds[0].head
        console.print(f"\n[bold]{task}[/bold], {first['split']} split, {first['subjects']} subjects")
        for table in _TABLES[task](variants):
            console.print(table)
    several = any(len(folders) > 1 for folders in evaluations.values())
    told = "± standard deviation over seeds; a difference is that of the means over seeds" if several else "one seed"
    console.print(f"{told}; brackets are 95 % intervals by person", style="dim")


def print_represented(evaluations: Mapping[str, Sequence[Path]], console: Console) -> None:
    """Print the representation of each variant; the arguments are those of `print_variants`."""
    console.print(comparison({name: [Results.read(each) for each in own] for name, own in evaluations.items()}))


def transfer(variants: Sequence[Variant]) -> list[Table]:
    """PSNR, SSIM and NMSE, mean over pairs, beside the rival `lookup` and the first variant."""
    metrics, first = ("psnr", "ssim", "nmse"), variants[0]
    table = plain_table("mean over pairs, source ≠ target, strict protocol")
    titles = [f"{TRANSFER_NAMES[metric]} {ARROWS[metric]}" for metric in metrics]
    _columns(table, 1, ["variant", "seeds", *titles, "PSNR − lookup", f"PSNR − {first.name}"])
    for variant in variants:
        cells = [_spread([_pairs(seed.rows, metric, MODEL) for seed in variant.seeds]) for metric in metrics]
        cells.append(_spread([_pairs(seed.rows, "psnr", "model-lookup") for seed in variant.seeds]))
        found = () if variant is first else summarise(differences(averaged(variant.scores), averaged(first.scores)))
        row = _pairs(found, "psnr", "difference")
        table.add_row(variant.name, str(len(variant.seeds)), *cells, "" if row is None else interval(row))
    return [table]


def segmentation(variants: Sequence[Variant]) -> list[Table]:
    """Dice and HD95, means over subsets of each size, and scores of scans without lesions if there are such."""
    return [*_over_subsets(variants), *_detection(variants)]


def _over_subsets(variants: Sequence[Variant]) -> list[Table]:
    """Means over subsets, for each number each variant on a line, and its difference to the first one below."""
    first, about = variants[0], variants[0].seeds[0]
    task, names = SUBSET_TASKS[about.head["task"]], about.head["modalities"]
    paired = [Results(about.head, task.compare(each.scores, first.scores, names)) for each in variants[1:]]
    made = []
    for title, of, numbers in task.tables(about):
        table = plain_table(f"{title}: means over subsets")
        _columns(table, 2, [of, "variant", "seeds", *(column for column, _ in columns_of(about))])
        for one in numbers:
            for variant, difference in zip(variants, [None, *paired], strict=True):
                found = list(zip(*(_means(seed, MODEL, one) for seed in variant.seeds), strict=True))
                label = one.title if variant is first else ""
                table.add_row(label, variant.name, str(len(variant.seeds)), *map(_spread, found))
                if difference is not None:
                    cells = ["–" if row is None else interval(row) for row in _means(difference, "difference", one)]
                    table.add_row("", Text(f"  − {first.name}"), "", *cells, style="dim")
            table.add_section()
        made.append(table)
    return made


def _detection(variants: Sequence[Variant]) -> Iterable[Table]:
    """The metrics of the paper's Tables 6 to 8 with all scans given, and their mean over subsets."""
    about = variants[0].seeds[0]
    for region in about.head["regions"] if about.head["detection"] else ():
        for group, title in ((ONE, "all scans given"), (ALL, "mean over subsets")):
            table = plain_table(f"{region}: scans with and without, {title}")
            _columns(table, 1, ["variant", "seeds", *DETECTION_NAMES.values()])
            for variant in variants:
                found = [[mean_row(seed, MODEL, region, name, group) for seed in variant.seeds] for name in METRICS]
                table.add_row(variant.name, str(len(variant.seeds)), *map(_spread, found))
            yield table


_TABLES = {"transfer": transfer, "segmentation": segmentation, "classification": _over_subsets}


def _means(results: Results, method: str, one: Number) -> list[Row | None]:
    """A number's means over subsets, as the columns have them."""
    return [mean_row(results, method, one.region, one.metric, group) for _, group in columns_of(results)]


def _columns(table: Table, left: int, titles: Sequence[str]) -> None:
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < left else "right", no_wrap=True)


def _pairs(rows: Sequence[Row], metric: str, method: str) -> Row | None:
    """The mean over pairs in the strict protocol."""
    for row in rows:
        about = (row.protocol, row.group, row.region, row.metric, row.method)
        if about == ("strict", MEAN, HEADLINE["strict"], metric, method):
            return row
    return None


def _spread(rows: Sequence[Row | None]) -> str:
    """The mean over seeds, and their standard deviation if there are several."""
    known = [row for row in rows if row is not None and row.mean is not None]
    values = [row.mean for row in known if row.mean is not None]
    if not values:
        return "–"
    metric = known[0].metric
    spread = f" ± {number(statistics.stdev(values), metric)}" if len(values) > 1 else ""
    return number(statistics.fmean(values), metric) + spread
