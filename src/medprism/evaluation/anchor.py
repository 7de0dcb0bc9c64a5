"""Which modality to align the others to: the one that segments best by itself (MedMAP, section IV-A.1)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medprism.data.modalities import canonical
from medprism.errors import UserError
from medprism.evaluation.results import Results
from medprism.evaluation.subsets import ONE, OVER_REGIONS

logger = logging.getLogger(__name__)


def strongest_modality(
    evaluations: Sequence[Path], modalities: Sequence[str] | None = None
) -> tuple[str, dict[str, float]]:
    """The k of MedMAP's anchors, from evaluations of segmentation.

    The paper trains the backbone on each modality alone, evaluates all of these models, and takes the best; here that
    is the highest mean Dice over subjects and regions. Such models are evaluated one by one, each with its own modality
    as the only subset; of one network for all subsets a single evaluation will do. Other subsets do not count. Of
    several evaluations of a modality (seeds, folds) the mean is taken.

    Args:
        evaluations: folders with metrics.json, of one split of the same persons.
        modalities: those to choose from, any alias will do; by default all that the evaluated cohorts have.

    Returns:
        The best, the first of equals in the order of `modalities`; and the mean Dice of each.

    Raises:
        UserError: a modality has no score, or not as many as another; the evaluations are none, not of segmentation, or
            of different splits.
    """
    found = _read(evaluations)
    names = [name for results in found for name in results.head["modalities"]] if modalities is None else modalities
    scores: dict[str, list[float]] = {canonical(name): [] for name in names}
    for results in found:
        for row in results.select(group=ONE, method="model", region=OVER_REGIONS, metric="dice"):
            if len(row.given) == 1 and row.given[0] in scores and row.mean is not None:
                scores[row.given[0]].append(row.mean)
    if lacking := [name for name, values in scores.items() if not values]:
        raise UserError(
            f"expected a Dice for each of {' '.join(scores)} by itself, got none for {' '.join(lacking)}; "
            "evaluate with that subset"
        )
    if len({len(values) for values in scores.values()}) > 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        raise UserError(f"expected as many evaluations of each modality as of the others, got {told}")
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    return max(means, key=means.__getitem__), means


def _read(evaluations: Sequence[Path]) -> list[Results]:
    """The evaluations, if they are of segmentation and of the same persons and regions."""
    found = [Results.read(folder) for folder in evaluations]
    if not found:
        raise UserError("expected evaluations to choose a modality by, got none; run `medprism evaluate` first")
    first = found[0].head
    for folder, results in zip(evaluations, found, strict=True):
        if results.head.get("task") != "segmentation":
            raise UserError(f"expected evaluations of segmentation, got {results.head.get('task')} in {folder}")
        for key in ("split", "split_hash", "regions"):
            if results.head.get(key) != first.get(key):
                raise UserError(f"expected evaluations of one {key}, got two in {evaluations[0]} and {folder}")
    if first.get("split") == "test":
        logger.warning("the modality to align to is chosen on the test split; evaluate with --split validation for it")
    return found
