"""Classifications of several models beside each other: means over seeds, paired differences.

Accuracy and the like are numbers of a set of subjects, so what is averaged and subtracted are these numbers and not
those of single subjects. An interval comes from drawing persons, the same ones for all models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medprism.evaluation.class_summaries import Told, drawn_weights, numbers_of, rows_of
from medprism.evaluation.classes import CLASS_METRICS, Array
from medprism.evaluation.results import Row, Score
from medprism.evaluation.subsets import Subset

Numbers = dict[str, dict[Subset, Array]]
"""Metric -> what was given -> the number as it is, and of each draw."""


def mean_classes(runs: Sequence[Sequence[Score]], modalities: Sequence[str], *, seed: int = 0) -> tuple[Row, ...]:
    """The numbers of a model, means over several trainings of it.

    Args:
        runs: per_subject.csv of the evaluation of each training, see `read_scores`; of one split.
        modalities: canonical names in cohort order.
        seed: of the bootstrap.

    Returns:
        Rows of method `model`: each subset and the means over subsets, on what all trainings were scored on.
    """
    shared = _Shared.of(runs)
    return tuple(rows_of("model", shared.numbers(runs, seed), shared.rows, shared.persons, modalities))


def compare_classes(
    ours: Sequence[Sequence[Score]], theirs: Sequence[Sequence[Score]], modalities: Sequence[str], *, seed: int = 0
) -> tuple[Row, ...]:
    """Paired differences of the numbers of two models, each the mean over its trainings; see `mean_classes`.

    Returns:
        Rows of method `difference`, ours − theirs, on what all trainings of both were scored on.
    """
    shared = _Shared.of([*ours, *theirs])
    mine, other = shared.numbers(ours, seed), shared.numbers(theirs, seed)
    found = {metric: {given: own[given] - other[metric][given] for given in own} for metric, own in mine.items()}
    return tuple(rows_of("difference", found, shared.rows, shared.persons, modalities))


@dataclass(frozen=True)
class _Shared:
    """What all of some evaluations scored.

    Attributes:
        subjects: N names.
        persons: who they are.
        classes: K names.
        truth: (N,) the class of each subject.
        rows: what was given -> which subjects were scored with it.
    """

    subjects: list[str]
    persons: list[str]
    classes: list[str]
    truth: NDArray[np.int64]
    rows: dict[Subset, NDArray[np.int64]]

    @classmethod
    def of(cls, runs: Sequence[Sequence[Score]]) -> _Shared:
        """Gather it from the scores of the runs."""
        first, *others = (_told(run) for run in runs)
        cases = [case for case in first if all(other.get(case, {}).keys() == first[case].keys() for other in others)]
        subjects = list(dict.fromkeys(subject for subject, _ in cases))
        classes = list(dict.fromkeys(name for own in first.values() for name in own))
        person = {score.subject: score.person for score in runs[0]}
        truth = {score.subject: score.region for score in runs[0] if score.metric == "truth" and score.value == 1}
        held: dict[Subset, list[int]] = {}
        for subject, given in cases:
            held.setdefault(given, []).append(subjects.index(subject))
        return cls(
            subjects,
            [person[name] for name in subjects],
            classes,
            np.array([classes.index(truth[name]) for name in subjects], dtype=np.int64),
            {given: np.array(rows, dtype=np.int64) for given, rows in held.items()},
        )

    def numbers(self, runs: Sequence[Sequence[Score]], seed: int) -> Numbers:
        """Means over runs."""
        weights = drawn_weights(self.persons, seed)
        found = []
        for run in map(_told, runs):
            told = {}
            for given, rows in self.rows.items():
                own = [run[self.subjects[row], given] for row in rows]
                told[given] = Told(rows, np.array([[one[name] for name in self.classes] for one in own]))
            found.append(numbers_of(told, self.truth, weights))
        return {m: {s: np.mean([one[m][s] for one in found], axis=0) for s in self.rows} for m in CLASS_METRICS}


def _told(scores: Sequence[Score]) -> dict[tuple[str, Subset], dict[str, float]]:
    """Subject and what was given -> the probability of each class."""
    found: dict[tuple[str, Subset], dict[str, float]] = {}
    for score in scores:
        if (score.method, score.metric) == ("model", "probability"):
            found.setdefault((score.subject, score.given), {})[score.region] = score.value
    return found
