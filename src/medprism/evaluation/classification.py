"""`evaluate` for classification: every subset of the modalities; accuracy, AUC and F1.

Each subject is read once, and the model is run once for each subset of its scans.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from medprism.errors import UserError
from medprism.evaluation.class_summaries import PROTOCOL, Told, summarise_classes
from medprism.evaluation.class_tables import print_classification
from medprism.evaluation.folder import evaluation_folder, head, named, refuse_existing, require_fit, terminal, tracked
from medprism.evaluation.results import METRICS, Results, Score, write_scores
from medprism.evaluation.subsets import Subset, chosen, scorable, spelled
from medprism.inference.workers import Workers, in_turn

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

logger = logging.getLogger(__name__)

TASK, MAJORITY = "classification", "majority"


class ClassPredictor(Protocol):
    """What is evaluated: see `medprism.inference.classification.ClassificationModel`."""

    card: dict[str, Any]
    path: Path | None
    classes: tuple[str, ...]

    def predict(
        self,
        images: NDArray[np.float32],
        present: NDArray[np.bool_],
        foreground: NDArray[np.bool_] | None = None,
        affine: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """How likely each class is, (K,), from the present ones of (M, X, Y, Z); voxel -> world mm is `affine`."""
        ...


def evaluate_classification(
    model: ClassPredictor,
    cache: Cache,
    *,
    out: Path,
    split: str = "test",
    subsets: str | Sequence[str] = "all",
    seed: int = 0,
    limit: int | None = None,
    force: bool = False,
    console: Console | None = None,
    workers: Workers | None = None,
) -> Path:
    """Score a model and the rival `majority`, print the tables and write all that a report needs.

    `majority` always tells how frequent each class was in training.

    Args:
        model: the model.
        cache: prepared subjects with classes; those without are left out, and counted.
        out: folder for metrics.json, per_subject.csv, subjects.csv and copies of the model card and of the training
            log. It may hold other files.
        split: `test`, `validation`, or `training` (labelled as such).
        subsets: `all`, or some such as `t1n+t2f`; a subject is scored on those that it has all scans of.
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
    wanted = chosen(words, cache.modalities)
    entries = cache.subjects(split)[:limit]
    require_fit(model.card, cache, entries, split=split)
    values = _require_classes(model, cache)
    scored = [entry for entry in entries if entry.class_label is not None]
    asked = scorable(scored, wanted, cache, split=split, named=words != ["all"], what="a class")
    if len(scored) < len(entries):
        logger.warning("%d of %d subjects have no class and are left out", len(entries) - len(scored), len(entries))
    truth = _outputs(scored, values)
    counts = {name: int((truth == k).sum()) for k, name in enumerate(model.classes)}
    if absent := [name for name, count in counts.items() if not count]:
        logger.warning("no %s subject is of class %s; numbers are of the others", split, ", ".join(absent))

    with evaluation_folder(out, model.card, model.path, cache) as folder:
        told: dict[str, dict[Subset, Told]] = {"model": {}}
        gathered: dict[Subset, list[tuple[int, NDArray[np.float32]]]] = {subset: [] for subset in asked}
        predict = partial(_predictions, subsets=asked, modalities=cache.modalities)
        made = tracked(in_turn(model, workers, predict, scored), "scoring", console, len(scored))
        for number, own in enumerate(made):
            for subset, likely in own:
                gathered[subset].append((number, likely))
        for subset, found in gathered.items():
            rows = np.array([number for number, _ in found], dtype=np.int64)
            told["model"][subset] = Told(rows, np.stack([likely for _, likely in found]).astype(np.float64))
        frequent = _frequencies(cache, values)
        if frequent is not None:
            told[MAJORITY] = {
                s: Told(one.rows, np.tile(frequent, (len(one.rows), 1))) for s, one in told["model"].items()
            }
        write_scores(_scores(told["model"], scored, truth, model.classes), folder)
        about = head(model.card, cache, scored, task=TASK, protocol=PROTOCOL, split=split, seed=seed, limit=limit)
        about |= {
            "classes": counts,
            "subsets": [spelled(subset) for subset in asked],
            "f1": "macro: mean over classes of 2 TP / (2 TP + FP + FN)",
            "unclassified": len(entries) - len(scored),
        }
        persons = [entry.person for entry in scored]
        results = Results(about, summarise_classes(told, truth, persons, cache.modalities, seed=seed))
        results.write(folder)
    print_classification(results, console)
    console.print(f"written to {out}")
    return out / METRICS


def _require_classes(model: ClassPredictor, cache: Cache) -> list[int]:
    """The value in the cohort of each of the model's classes."""
    own: Mapping[str, int] = model.card["classes"]
    if cache.classes and dict(own) != cache.classes:
        told, got = (", ".join(f"{name} {value}" for name, value in one.items()) for one in (own, cache.classes))
        raise UserError(
            f"expected classes as the model was trained on ({told}), got {got}; name them so in the cohort file and "
            "prepare it again"
        )
    return [own[name] for name in model.classes]


def _outputs(entries: Sequence[Entry], values: Sequence[int]) -> NDArray[np.int64]:
    """Which of the model's classes each subject is of."""
    strange = [entry.subject for entry in entries if entry.class_label not in values]
    if strange:
        raise UserError(
            f"expected classes {', '.join(map(str, values))}, which the model knows, got others for "
            f"{', '.join(strange[:3])}; leave these subjects out, or train with their class"
        )
    return np.array([values.index(entry.class_label or 0) for entry in entries], dtype=np.int64)


def _predictions(
    model: ClassPredictor, entry: Entry, subsets: Sequence[Subset], modalities: Sequence[str]
) -> list[tuple[Subset, NDArray[np.float32]]]:
    """What the model says of a subject, for each of the subsets that it has all scans of."""
    images, foreground = entry.images(), entry.foreground()
    found = []
    for subset in subsets:
        given = np.isin(modalities, subset)
        if not (np.array(entry.present) | ~given).all():
            continue
        alone = np.where(given[:, None, None, None], images, np.float32(0))  # what is not given cannot be read
        with named(entry.subject):
            likely = model.predict(alone, given, np.asarray(foreground[given].any(axis=0)), affine=entry.affine)
        if likely.shape != (len(model.classes),) or not np.isfinite(likely).all():
            raise UserError(
                f"{entry.subject}: expected {len(model.classes)} finite probabilities from the model, got "
                f"{likely.tolist()}; the model is broken, train it again"
            )
        found.append((subset, likely))
    return found


def _frequencies(cache: Cache, values: Sequence[int]) -> NDArray[np.float64] | None:
    """Share of each class among the training subjects that have one; None where there are none."""
    own = [entry.class_label for entry in cache.subjects("training") if entry.class_label in values]
    return np.array([own.count(value) for value in values]) / len(own) if own else None


def _scores(
    told: Mapping[Subset, Told], entries: Sequence[Entry], truth: NDArray[np.int64], classes: Sequence[str]
) -> list[Score]:
    """Each subject's probabilities; metric `probability`, region the class, and `truth`, 1 for its own class."""
    scores = []
    for subset, one in told.items():
        for number, likely in zip(one.rows.tolist(), one.likely, strict=True):
            entry = entries[number]
            for k, name in enumerate(classes):
                for metric, value in (("probability", float(likely[k])), ("truth", float(truth[number] == k))):
                    scores.append(
                        Score(PROTOCOL, "model", subset, None, name, metric, value, entry.subject, entry.person)
                    )
    return scores
