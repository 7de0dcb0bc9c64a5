"""From the probabilities of single subjects under subsets of the modalities to the rows of the table.

Accuracy and the like are no means over subjects, so there is no spread over them; an interval comes from drawing
persons again and computing the number anew. Groups are those of `subsets.means_over`: a mean over subsets is the plain
mean of the subsets' numbers, its `std` is over subsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medprism.evaluation.classes import CLASS_METRICS, Array, rated
from medprism.evaluation.results import Row
from medprism.evaluation.statistics import LEVEL, Bootstrap
from medprism.evaluation.subsets import ALL, ONE, Subset, means_over

PROTOCOL, REGION = "subsets", "subject"


@dataclass(frozen=True)
class Told:
    """What a method said of the subjects that have all scans of a subset.

    Attributes:
        rows: (n,) which subjects.
        likely: (n, K) probability of each class.
    """

    rows: NDArray[np.int64]
    likely: Array


def summarise_classes(
    told: Mapping[str, Mapping[Subset, Told]],
    truth: NDArray[np.int64],
    persons: Sequence[str],
    modalities: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[Row, ...]:
    """All rows.

    Args:
        told: by method and subset.
        truth: (N,) the class of each subject, from 0 to K − 1.
        persons: N names.
        modalities: canonical names in cohort order.
        seed: of the bootstrap.
    """
    weights = drawn_weights(persons, seed)
    rows: list[Row] = []
    for method, by_subset in told.items():
        held = {subset: one.rows for subset, one in by_subset.items()}
        rows += rows_of(method, numbers_of(by_subset, truth, weights), held, persons, modalities)
    return tuple(rows)


def drawn_weights(persons: Sequence[str], seed: int) -> Array:
    """(1 + R, N) how often each subject is in the set as it is, and in each that the bootstrap draws."""
    bootstrap = Bootstrap(persons, seed=seed)
    return np.concatenate([np.ones((1, len(persons))), bootstrap.weights[:, bootstrap.rows]])


def numbers_of(
    by_subset: Mapping[Subset, Told], truth: NDArray[np.int64], weights: Array
) -> dict[str, dict[Subset, Array]]:
    """Metric -> subset -> (1 + R,) the number as it is, and of each draw."""
    found = {subset: rated(one.likely, truth[one.rows], weights[:, one.rows]) for subset, one in by_subset.items()}
    return {metric: {subset: numbers[metric] for subset, numbers in found.items()} for metric in CLASS_METRICS}


def rows_of(
    method: str,
    numbers: Mapping[str, Mapping[Subset, Array]],
    held: Mapping[Subset, NDArray[np.int64]],
    persons: Sequence[str],
    modalities: Sequence[str],
) -> Iterator[Row]:
    """A row for each metric and subset, and for each mean over subsets.

    Args:
        method: whose.
        numbers: see `numbers_of`.
        held: subset -> which subjects were scored with it.
        persons: of all subjects.
        modalities: canonical names in cohort order.
    """
    groups = means_over(list(held), modalities)
    wanted = [(ONE, [subset]) for subset in groups.get(ALL, ())] + list(groups.items())
    for metric, values in numbers.items():
        for group, subsets in wanted:
            table = np.stack([values[subset] for subset in subsets])
            own = sorted(set().union(*(held[subset].tolist() for subset in subsets)))
            yield _row(method, group, subsets, metric, table, [persons[k] for k in own])


def _row(method: str, group: str, subsets: Sequence[Subset], metric: str, table: Array, persons: Sequence[str]) -> Row:
    """One row from numbers (subsets, 1 + draws)."""
    table = table[np.isfinite(table[:, 0])]
    means = table[:, 0]
    exist = np.isfinite(table)
    sums, counts = np.where(exist, table, 0).sum(axis=0), exist.sum(axis=0)
    drawn = sums[1:][counts[1:] > 0] / counts[1:][counts[1:] > 0]
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    ends = np.quantile(drawn, [low, high]).tolist() if len(set(persons)) > 1 and drawn.size else None
    return Row(
        protocol=PROTOCOL,
        group=group,
        method=method,
        given=subsets[0] if group == ONE else (),
        target=None,
        region=REGION,
        metric=metric,
        mean=float(means.mean()) if means.size else None,
        std=float(means.std(ddof=1)) if means.size > 1 else None,
        ci95=None if ends is None else (ends[0], ends[1]),
        n=len(persons) if means.size else 0,
        n_empty=0 if means.size else len(persons),
    )
