"""`evaluate` for segmentation: every subset of the modalities, every region, Dice and HD95.

Each subject is read once, and the model is run once for each subset of its scans. Labels are compared on the prepared
grid, that of the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from medprism.errors import UserError
from medprism.evaluation.folder import evaluation_folder, head, refuse_existing, require_fit, terminal, tracked
from medprism.evaluation.results import METRICS, Results, Score, write_scores
from medprism.evaluation.slices import SLICES, SliceStore
from medprism.evaluation.subset_scoring import PROTOCOL, SegPredictor, SubsetScorer
from medprism.evaluation.subset_summaries import summarise_subsets
from medprism.evaluation.subset_tables import print_segmentation
from medprism.evaluation.subsets import Subset, chosen, scorable, served, spelled
from medprism.inference.components import described
from medprism.inference.workers import Workers, in_turn

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

logger = logging.getLogger(__name__)

RULES = "both empty: Dice 1, HD95 0 mm; one empty: Dice 0, HD95 the volume's diagonal"

LEAK = "leaks: the network's joint encoder sees the scans that it is not given"


def evaluate_segmentation(
    model: SegPredictor,
    cache: Cache,
    *,
    out: Path,
    split: str = "test",
    subsets: str | Sequence[str] = "all",
    small: Mapping[str, float] | None = None,
    detection: bool | None = None,
    seed: int = 0,
    limit: int | None = None,
    force: bool = False,
    console: Console | None = None,
    workers: Workers | None = None,
) -> Path:
    """Score a model, print the tables and write all that a report needs.

    Args:
        model: the model.
        cache: prepared subjects with labels; those without are left out, and counted.
        out: folder for metrics.json, per_subject.csv, subjects.csv, slices.npz and copies of the model card and of the
            training log. It may hold other files.
        split: `test`, `validation`, or `training` (labelled as such).
        subsets: `all`, or some such as `t1n+t2f`; a subject is scored on those that it has all scans of.
        small: region -> mm³; also score outputs of which a region of less is dropped, see `drop_small`.
        detection: also score scans as having lesions or not, see `medprism.evaluation.detection`. By default where some
            subject has no lesion.
        seed: of the bootstrap.
        limit: only the first so many subjects, for a quick look.
        force: replace an evaluation that is there.
        console: where the tables go.
        workers: score there; the numbers are the same.

    Returns:
        The path of metrics.json.

    Raises:
        UserError: an evaluation is there already, there is nothing to score, model and cache do not fit together, or
            the model was trained on one of the persons.
    """
    out, console = Path(out), console or terminal()
    refuse_existing(out, force=force)
    words = [subsets] if isinstance(subsets, str) else list(subsets)
    wanted = served(chosen(words, cache.modalities), model.card.get("only"), named=words != ["all"])
    rule = described(small or {}, model.regions)
    entries = cache.subjects(split)[:limit]
    require_fit(model.card, cache, entries, split=split)
    _require_labels(model, cache)
    there = {entry.subject: values for entry in entries if (values := _values(entry)) is not None}
    scored = [entry for entry in entries if entry.subject in there]
    asked = scorable(scored, wanted, cache, split=split, named=words != ["all"], what="labels")
    if len(scored) < len(entries):
        logger.warning("%d of %d subjects have no label and are left out", len(entries) - len(scored), len(entries))
    if detection is None:
        detection = any(values == {0} for values in there.values())
    lacking = any(not values & set(region) for values in there.values() for region in model.regions.values())

    with evaluation_folder(out, model.card, model.path, cache) as folder:
        slices, scores = SliceStore(folder / "slices"), list[Score]()
        score = partial(
            _score,
            modalities=cache.modalities,
            subsets=asked,
            small=small or {},
            with_detection=detection,
            with_empty=detection or lacking,
            folder=slices.folder.absolute(),
        )
        for own in tracked(in_turn(model, workers, score, scored), "scoring", console, len(scored)):
            scores += own
        slices.finish(_ranking(scores), folder / SLICES, score="mean Dice over subsets and regions")
        write_scores(scores, folder)
        about = head(
            model.card, cache, scored, task="segmentation", protocol=PROTOCOL, split=split, seed=seed, limit=limit
        )
        about |= {
            "regions": model.regions,
            "subsets": [spelled(subset) for subset in asked],
            "empty_rule": RULES,
            "small": rule or None,
            "detection": detection,
            "unlabelled": len(entries) - len(scored),
            "leak": LEAK if model.card.get("leaks") else None,
        }
        results = Results(about, summarise_subsets(scores, cache.modalities, seed=seed))
        results.write(folder)
    print_segmentation(results, console)
    console.print(f"written to {out}")
    return out / METRICS


def _score(
    model: SegPredictor,
    entry: Entry,
    *,
    modalities: Sequence[str],
    subsets: Sequence[Subset],
    small: Mapping[str, float],
    with_detection: bool,
    with_empty: bool,
    folder: Path,
) -> list[Score]:
    """One subject's scores; its slices go to `folder`."""
    scorer = SubsetScorer(model, modalities, subsets, small=small, with_detection=with_detection, with_empty=with_empty)
    return scorer.score(entry, SliceStore(folder))


def _require_labels(model: SegPredictor, cache: Cache) -> None:
    if dict(model.labels) != dict(cache.labels):
        named = ", ".join(f"{name} {value}" for name, value in cache.labels.items())
        own = ", ".join(f"{name} {value}" for name, value in model.labels.items())
        raise UserError(
            f"expected labels as the model was trained on ({own}), got {named or 'none'}; "
            "name them so in the cohort file and prepare it again"
        )


def _values(entry: Entry) -> set[int] | None:
    """The label values that a subject has; None without a label."""
    label = entry.label()
    return None if label is None else set(np.flatnonzero(np.bincount(label.ravel())).tolist())


def _ranking(scores: Sequence[Score]) -> dict[str, float]:
    """Each subject's mean Dice of the model."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if (score.method, score.metric) == ("model", "dice"):
            values.setdefault(score.subject, []).append(score.value)
    return {subject: float(np.mean(own)) for subject, own in values.items()}
