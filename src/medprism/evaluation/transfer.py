"""`evaluate` for modality transfer: every source to every target, beside two trivial rivals.

Each test subject is read once, and the model is run once per set of given scans for all targets together. A pair is
scored for the subjects that have both scans; every row carries their number.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from medprism.data.spread import spread_in_order
from medprism.errors import UserError
from medprism.evaluation import protocols as rules
from medprism.evaluation.folder import evaluation_folder, head, refuse_existing, require_fit, terminal, tracked
from medprism.evaluation.results import METRICS, Results, Score, write_scores
from medprism.evaluation.rivals import Rivals, sums_of
from medprism.evaluation.scoring import Given, Predictor, Scorer
from medprism.evaluation.slices import SLICES, SliceStore
from medprism.evaluation.subjects import Representation
from medprism.evaluation.summaries import summarise
from medprism.evaluation.tables import print_transfer
from medprism.inference.workers import Workers, in_turn

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

logger = logging.getLogger(__name__)


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
    workers: Workers | None = None,
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
        workers: score there; the numbers are the same.

    Returns:
        The path of metrics.json.

    Raises:
        UserError: an evaluation is there already, there is nothing to score, model and cache do not fit together, or
            the model was trained on one of the persons.
    """
    out, console = Path(out), console or terminal()
    refuse_existing(out, force=force)
    entries = cache.subjects(split)[:limit]
    require_fit(model.card, cache, entries, split=split)
    for chosen, known in ((protocols, rules.PROTOCOLS), (given, get_args(Given))):
        if not chosen or not set(chosen) <= set(known):
            raise UserError(f"expected some of {', '.join(known)}, got {', '.join(chosen) or 'nothing'}; choose again")
    training = cache.subjects("training")
    sums = spread_in_order(sums_of, training, scheduler=workers.scheduler if workers else None)
    rivals = Rivals.of(tracked(sums, "fitting rivals", console, len(training)))
    if not rivals.curves:
        logger.warning("the cache has no training subjects, so there are no rivals to compare with")

    with evaluation_folder(out, model.card, model.path, cache) as folder:
        slices, embedded, scores = SliceStore(folder / "slices"), Representation(), list[Score]()
        score = partial(
            _score,
            modalities=cache.modalities,
            units={name: cache.recipe.normalisers[name].unit for name in cache.modalities},
            rivals=rivals,
            protocols=protocols,
            given=given,
            folder=slices.folder.absolute(),
            representation=representation,
        )
        found = tracked(in_turn(model, workers, score, entries), "scoring", console, len(entries))
        for entry, (own, vectors) in zip(entries, found, strict=True):
            scores += own
            if vectors is not None:
                embedded.add(entry, vectors, cache.modalities)
        if not scores:
            raise UserError(f"expected {split} subjects with at least one scan, got none; check the cohort file")
        ranking, by = _ranking(scores)
        slices.finish(ranking, folder / SLICES, score=by)
        write_scores(scores, folder)
        embedded.write(folder)
        about = head(
            model.card,
            cache,
            entries,
            task="transfer",
            protocol="+".join(protocols),
            split=split,
            seed=seed,
            limit=limit,
        )
        names = cache.modalities
        fitted = {f"{names[i]}→{names[j]}": n for (i, j), n in rivals.subjects.items()}
        leak = rules.LEAK if "paper" in protocols else None
        about |= {key: [n for n in names if n in model.card.get(key, names)] for key in ("sources", "makes")}
        results = Results({**about, "leak": leak, "rivals": fitted}, summarise(scores, seed=seed))
        results.write(folder)
    print_transfer(results, console)
    console.print(f"written to {out}")
    return out / METRICS


def _score(
    model: Predictor,
    entry: Entry,
    *,
    modalities: Sequence[str],
    units: Mapping[str, str],
    rivals: Rivals,
    protocols: Sequence[rules.Protocol],
    given: Sequence[Given],
    folder: Path,
    representation: bool,
) -> tuple[list[Score], NDArray[np.float32] | None]:
    """One subject's scores and, if wanted, what each scan is represented by, (M, C); its slices go to `folder`."""
    scorer = Scorer(model, modalities, units, rivals, protocols=protocols, given=given)
    scores = scorer.score(entry, SliceStore(folder))
    return scores, model.embed(entry.images(), np.array(entry.present)) if representation else None


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
