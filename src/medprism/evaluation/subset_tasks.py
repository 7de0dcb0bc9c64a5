"""What the tasks that are scored under subsets of the scans have in common when models are beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medprism.evaluation.class_comparison import compare_classes, mean_classes
from medprism.evaluation.class_summaries import REGION
from medprism.evaluation.class_tables import NAMES as CLASS_NAMES
from medprism.evaluation.comparison import averaged, compare_subsets
from medprism.evaluation.results import Results, Row, Score
from medprism.evaluation.subset_summaries import summarise_subsets
from medprism.evaluation.subset_tables import NAMES, regions_of

Runs = Sequence[Sequence[Score]]
"""The scores of single subjects of each training of a model, one a seed."""


@dataclass(frozen=True)
class Number:
    """A number that models are compared by.

    Attributes:
        title: of the line, panel or table that shows it.
        region: of its rows.
        metric: likewise.
        axis: of the panels of several such numbers; empty where each has its own, which the title says.
    """

    title: str
    region: str
    metric: str
    axis: str = ""


@dataclass(frozen=True)
class SubsetTask:
    """How models that do a task are compared.

    Attributes:
        tables: results of one model -> (title, what its lines are, numbers) of each table.
        chief: likewise -> those that stand for all.
        mean: scores of a model, modalities -> its rows, of method `model`.
        compare: scores of two models, modalities -> rows of their paired differences, of method `difference`.
    """

    tables: Callable[[Results], list[tuple[str, str, list[Number]]]]
    chief: Callable[[Results], list[Number]]
    mean: Callable[[Runs, Sequence[str]], tuple[Row, ...]]
    compare: Callable[[Runs, Runs, Sequence[str]], tuple[Row, ...]]


def spoken(numbers: Sequence[Number]) -> str:
    """What is measured, in words, such as `Dice`."""
    return " and ".join(dict.fromkeys((one.axis or one.title).rstrip(" ↑↓") for one in numbers))


def _overlap(metric: str) -> Callable[[Results], list[Number]]:
    return lambda about: [Number(region, region, metric, NAMES[metric]) for region in regions_of(about)]


def _told(*metrics: str) -> Callable[[Results], list[Number]]:
    return lambda _: [Number(CLASS_NAMES[metric], REGION, metric) for metric in metrics]


SUBSET_TASKS = {
    "segmentation": SubsetTask(
        tables=lambda about: [(title, "region", _overlap(metric)(about)) for metric, title in NAMES.items()],
        chief=_overlap("dice"),
        mean=lambda runs, names: summarise_subsets(averaged(runs), names),
        compare=lambda ours, theirs, names: compare_subsets(averaged(ours), averaged(theirs), names),
    ),
    "classification": SubsetTask(
        tables=lambda about: [("classification", "number", _told(*CLASS_NAMES)(about))],
        chief=_told("acc", "auc"),
        mean=mean_classes,
        compare=compare_classes,
    ),
}
"""By the name of the task."""
