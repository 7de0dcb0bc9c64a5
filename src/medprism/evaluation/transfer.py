"""`evaluate` for modality transfer: every source to every target, beside two trivial rivals.

Each test subject is read once, and the model is run once per set of given scans for all targets together. A pair is
scored for the subjects that have both scans; every row carries their number.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.console import Console
from rich.progress import track

import medprism
from medprism.errors import UserError
from medprism.evaluation import protocols as rules
from medprism.evaluation.leakage import refuse_seen
from medprism.evaluation.results import METRICS, PER_SUBJECT, Results, Score, machine, write_scores
from medprism.evaluation.rivals import Rivals
from medprism.evaluation.scoring import Given, Predictor, Scorer
from medprism.evaluation.slices import SLICES, SliceStore
from medprism.evaluation.subjects import REPRESENTATION, SUBJECTS, Representation, write_subjects
from medprism.evaluation.summaries import summarise
from medprism.evaluation.tables import print_transfer

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

logger = logging.getLogger(__name__)

CARD, LOG = "model.json", "log.csv"
FILES = (PER_SUBJECT, SUBJECTS, SLICES, REPRESENTATION, CARD, LOG)  # beside metrics.json, which is written last


def evaluate_transfer(
    model: Predictor,
    cache: Cache,
    *,
    out: Path,
    split: str = "test",
    protocols: Sequence[rules.Protocol] = ("strict",),
    given: Sequence[Given] = ("single",),
    seed: int = 0,
    limit: int | None = None,
    representation: bool = True,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Score a model and its rivals, print the tables and write all that a report needs.

    Args:
        model: the model.
        cache: prepared subjects; the rivals are fitted on its training split.
        out: folder for metrics.json, per_subject.csv, subjects.csv, slices.npz, representation.npz and copies of the
            model card and of the training log. It may hold other files.
        split: `test`, `validation`, or `training` (labelled as such).
        protocols: `strict`, `paper` or both.
        given: `single`: each scan alone; `rest`: also all other scans of the subject → each target.
        seed: of the bootstrap.
        limit: only the first so many subjects, for a quick look.
        representation: also embed every scan, for the picture of the representation.
        force: replace an evaluation that is there.
        console: where the tables go.

    Returns:
        The path of metrics.json.

    Raises:
        UserError: an evaluation is there already, there is nothing to score, model and cache do not fit together, or
            the model was trained on one of the persons.
    """
    out, console = Path(out), console or Console()
    _refuse_existing(out, force=force)
    entries = cache.subjects(split)[:limit]
    _check(model, cache, entries, split=split, protocols=protocols, given=given)
    training = cache.subjects("training")
    rivals = Rivals.fit(_track(training, "fitting rivals", console))
    if not rivals.curves:
        logger.warning("the cache has no training subjects, so there are no rivals to compare with")

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary)
        (folder / "slices").mkdir()
        slices, embedded, scores = SliceStore(folder / "slices"), Representation(), list[Score]()
        scorer = Scorer(model, cache, rivals, protocols=protocols, given=given)
        for entry in _track(entries, "scoring", console):
            scores += scorer.score(entry, slices)
            if representation:
                embedded.add(entry, model.embed(entry.images(), np.array(entry.present)), cache.modalities)
        if not scores:
            raise UserError(f"expected {split} subjects with at least one scan, got none; check the cohort file")
        rows = summarise(scores, seed=seed)
        ranking, by = _ranking(scores)
        slices.finish(ranking, folder / SLICES, score=by)
        write_scores(scores, folder)
        write_subjects(cache, folder)
        embedded.write(folder)
        (folder / CARD).write_text(json.dumps(dict(model.card), indent=1) + "\n", encoding="utf-8")
        _copy_log(model.path, folder / LOG)
        head = _head(model, cache, entries, rivals, split=split, protocols=protocols, seed=seed, limit=limit)
        results = Results(head, rows)
        results.write(folder)
        _publish(folder, out)
    print_transfer(results, console)
    console.print(f"written to {out}")
    return out / METRICS


def _track(entries: Sequence[Entry], what: str, console: Console) -> Iterable[Entry]:
    return track(entries, what, console=console, transient=True, disable=not console.is_terminal)


def _check(
    model: Predictor,
    cache: Cache,
    entries: Sequence[Entry],
    *,
    split: str,
    protocols: Sequence[str],
    given: Sequence[str],
) -> None:
    if not entries:
        raise UserError(f"expected subjects in split {split} of {cache.name}, got none; choose another split")
    for chosen, known in ((protocols, rules.PROTOCOLS), (given, get_args(Given))):
        if not chosen or not set(chosen) <= set(known):
            raise UserError(f"expected some of {', '.join(known)}, got {', '.join(chosen) or 'nothing'}; choose again")
    if list(model.card["modalities"]) != list(cache.modalities):
        raise UserError(
            f"expected a cache of {' '.join(model.card['modalities'])} as the model was trained on, got "
            f"{' '.join(cache.modalities)}; prepare the cohort with these modalities in this order"
        )
    recipes = {name: cache.recipe.normalisers[name].to_dict() for name in cache.modalities}
    trained = model.card["normalisers"]
    differing = [name for name in recipes if _plain(trained[name]) != _plain(recipes[name])]
    if differing:
        raise UserError(
            f"expected intensities normalised as in training, got another normaliser for {' '.join(differing)}; "
            "prepare the cohort with the model's recipe"
        )
    if model.card["spacing"] != _plain(cache.recipe.spacing):
        raise UserError(
            f"expected voxels of {model.card['spacing']} mm as in training, got {_plain(cache.recipe.spacing)}; "
            "prepare the cohort with the model's spacing"
        )
    refuse_seen(model.card, entries, split=split, split_hash=cache.split_hash)


def _head(
    model: Predictor,
    cache: Cache,
    entries: Sequence[Entry],
    rivals: Rivals,
    *,
    split: str,
    protocols: Sequence[str],
    seed: int,
    limit: int | None,
) -> dict[str, Any]:
    """Everything in metrics.json but the rows."""
    names = cache.modalities
    return {
        "task": "transfer",
        "protocol": "+".join(protocols),
        "split": split,
        "seed": seed,
        "version": medprism.__version__,
        "split_hash": cache.split_hash,
        "model_hash": model.card.get("sha256"),
        "machine": machine(),
        "cohort": cache.name,
        "phantom": cache.name.startswith("phantom"),
        "modalities": list(names),
        "subjects": len(entries),
        "persons": len({entry.person for entry in entries}),
        "limit": limit,
        "leak": rules.LEAK if "paper" in protocols else None,
        "recipe": {name: _plain(cache.recipe.normalisers[name].to_dict()) for name in names},
        "rivals": {f"{names[i]}→{names[j]}": n for (i, j), n in rivals.subjects.items()},
    }


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """A value as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))


def _ranking(scores: Sequence[Score]) -> tuple[dict[str, float], str]:
    """Each subject's mean PSNR of the model over the pairs that it has, off the diagonal."""
    protocol = scores[0].protocol
    region = "foreground" if protocol == "strict" else "volume"
    values: dict[str, list[float]] = {}
    for score in scores:
        key = (score.protocol, score.region, score.metric, score.method)
        if key == (protocol, region, "psnr", "model") and score.given != (score.target,):
            values.setdefault(score.subject, []).append(score.value)
    means = {subject: float(np.nanmean(v)) for subject, v in values.items() if np.isfinite(v).any()}
    return means, f"mean PSNR over pairs, {protocol} protocol, {region}"


def _refuse_existing(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"expected a folder to write to, got the file {out}; choose another place")
    if (out / METRICS).exists() and not force:
        raise UserError(
            f"expected no evaluation in {out}, but {METRICS} is there; choose another place or pass --force"
        )


def _copy_log(model: Path | None, path: Path) -> None:
    """Keep the training log beside the scores where the model still lies in its run."""
    if model is not None and model.name == "model" and (model.parent / "metrics.csv").is_file():
        shutil.copyfile(model.parent / "metrics.csv", path)


def _publish(folder: Path, out: Path) -> None:
    """Move a finished evaluation to its place; metrics.json goes first and comes last, as the sign of a whole one."""
    out.mkdir(exist_ok=True)
    for name in (METRICS, *FILES):
        (out / name).unlink(missing_ok=True)
    for name in (*FILES, METRICS):
        if (folder / name).exists():
            os.replace(folder / name, out / name)
