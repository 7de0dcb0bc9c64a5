"""Whether a model beats a rival, in one word, and what to say of a split; shared by the terminal and the report."""

from __future__ import annotations

from typing import Literal

from medprism.evaluation.metrics import HIGHER_IS_BETTER
from medprism.evaluation.results import Row

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
