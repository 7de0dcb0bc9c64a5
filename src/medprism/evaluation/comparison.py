"""Whether a model beats a rival, and two evaluations beside each other; shared by the terminal and the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from medprism.evaluation.metrics import HIGHER_IS_BETTER
from medprism.evaluation.results import Row, Score
from medprism.evaluation.subset_summaries import OVERLAP, summarise_subsets

Verdict = Literal["wins", "level", "loses"]


def verdict(difference: Row) -> Verdict | None:
    """The verdict of a paired difference model − rival.

    `loses`: the mean is on the rival's side. `wins`: the whole 95 % interval is on the model's side. `level`: the mean
    is on the model's side (or zero) but the interval is not, or there is none. It is for the model to show that it is
    better.

    Returns:
        The verdict, or None where there is no difference.
    """
    if difference.mean is None:
        return None
    sign = 1 if difference.metric in HIGHER_IS_BETTER else -1
    if sign * difference.mean < 0:
        return "loses"
    if difference.ci95 is not None and min(sign * end for end in difference.ci95) > 0:
        return "wins"
    return "level"


def worst_verdict(differences: list[Row]) -> Verdict | None:
    """The verdict against the strongest of several rivals."""
    found = [verdict(difference) for difference in differences]
    order: tuple[Verdict, ...] = ("loses", "level", "wins")
    return next((word for word in order if word in found), None)


def caution(split: str) -> str | None:
    """What to print beside numbers of a split that a model has seen; None for the test split."""
    return {
        "training": "the model was trained on these subjects",
        "validation": "the model was chosen on these subjects",
    }.get(split)


def differences(ours: Sequence[Score], theirs: Sequence[Score], *, method: str = "model") -> list[Score]:
    """What one evaluation has more than another one, subject by subject and case by case, where both have a value.

    Args:
        ours: of one evaluation.
        theirs: of the other, of the same split.
        method: whose scores.

    Returns:
        Scores of method `difference`.
    """
    other = {_case(score): score.value for score in theirs if score.method == method}
    pairs = [(score, other[_case(score)]) for score in ours if score.method == method and _case(score) in other]
    found = [replace(score, method="difference", value=score.value - value) for score, value in pairs]
    return [score for score in found if np.isfinite(score.value)]


def compare_subsets(
    ours: Sequence[Score], theirs: Sequence[Score], modalities: Sequence[str], *, method: str = "model", seed: int = 0
) -> tuple[Row, ...]:
    """Paired differences of Dice and HD95 between two segmentation evaluations, with intervals by person.

    Args:
        ours: per_subject.csv of one evaluation, see `read_scores`.
        theirs: that of the other, of the same split.
        modalities: canonical names in cohort order.
        method: whose scores.
        seed: of the bootstrap.

    Returns:
        Rows of method `difference`: each subset and the means over subsets, each region and their mean.
    """
    overlap = [[score for score in scores if score.metric in OVERLAP] for scores in (ours, theirs)]
    return summarise_subsets(differences(*overlap, method=method), modalities, seed=seed)


def averaged(runs: Sequence[Sequence[Score]]) -> list[Score]:
    """Each score's mean over several evaluations, such as of trainings from several seeds, where all have it."""
    gathered: dict[tuple[object, ...], list[Score]] = defaultdict(list)
    for scores in runs:
        for score in scores:
            gathered[_case(score), score.method].append(score)
    return [
        replace(same[0], value=float(np.mean([score.value for score in same])))
        for same in gathered.values()
        if len(same) == len(runs)
    ]


def _case(score: Score) -> tuple[object, ...]:
    return score.protocol, score.given, score.target, score.region, score.metric, score.subject
