"""`evaluate --representation`: what z and x_h of a model tell of held-out persons, beside the untrained network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from medprism.errors import UserError
from medprism.evaluation.folder import evaluation_folder, head, refuse_existing, require_fit, terminal, tracked
from medprism.evaluation.representation import PROTOCOL, TASK
from medprism.evaluation.representation.features import Features, bottleneck_of, gather, runner_of, turns_of
from medprism.evaluation.representation.measure import measure
from medprism.evaluation.representation.tables import print_representation
from medprism.evaluation.results import METRICS, Results, Row, Score, write_scores
from medprism.evaluation.subjects import REPRESENTATION
from medprism.inference.device import Precision
from medprism.io.atomic import whole_file
from medprism.models import build
from medprism.models.folder import find_model, load_model

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

logger = logging.getLogger(__name__)


def evaluate_representation(
    model: Path,
    cache: Cache,
    *,
    out: Path,
    split: str = "test",
    device: str = "auto",
    precision: Precision = "32",
    seed: int = 0,
    limit: int | None = None,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Measure the representation of a model of any task, print the table and write what a report needs.

    Args:
        model: model folder, or the folder of the run that made it.
        cache: prepared subjects.
        out: folder for metrics.json, per_subject.csv, subjects.csv, representation.npz and copies of the model card
            and of the training log. It may hold other files, but no evaluation of the model's task.
        split: `test`, `validation`, or `training` (labelled as such).
        device: as for `Model.load`.
        precision: as for `Model.load`.
        seed: of the bootstrap and of the untrained network.
        limit: only the first so many subjects, for a quick look.
        force: replace an evaluation that is there.
        console: where the tables go.

    Returns:
        The path of metrics.json.

    Raises:
        UserError: an evaluation is there already, fewer than two persons, no encoder that modalities share, model and
            cache do not fit together, or the model was trained on one of the persons.
    """
    out, console = Path(out), console or terminal()
    refuse_existing(out, force=force)
    network, card = load_model(model)
    entries = cache.subjects(split)[:limit]
    require_fit(card, cache, entries, split=split)
    require_persons(entries, split=split, cohort=cache.name)
    patch = bottleneck_of(network, card).patch_size
    if len(turns_of(patch)) == 1:
        logger.warning("patches of %s voxels cannot be turned in the X-Y plane: rotation is not measured", patch)

    rows, scores, trained = list[Row](), list[Score](), None
    for method, which in (("model", network), ("untrained", _fresh(card, seed))):
        runner = runner_of(bottleneck_of(which, card), device, precision)
        features = gather(runner, tracked(entries, f"encoding, {method}", console), patch)
        found = measure(features, cache.modalities, method=method, subjects=len(entries), seed=seed)
        rows, scores, trained = rows + found[0], scores + found[1], trained or features
    assert trained is not None

    with evaluation_folder(out, card, find_model(model), cache) as folder:
        write_scores(scores, folder)
        write_features(trained, cache.modalities, folder / REPRESENTATION)
        about = head(card, cache, entries, task=TASK, protocol=PROTOCOL, split=split, seed=seed, limit=limit)
        crops = {"crops": len(np.unique(trained.crop)), "patch_size": list(patch)}
        results = Results({**about, **crops}, tuple(rows))
        results.write(folder)
    print_representation(results, console)
    console.print(f"written to {out}")
    return out / METRICS


def require_persons(entries: Sequence[Entry], *, split: str, cohort: str) -> None:
    """Stop where there is nobody to tell a person from.

    Raises:
        UserError: there are fewer than two persons.
    """
    if (count := len({entry.person for entry in entries})) < 2:
        raise UserError(
            f"expected at least two persons in split {split} of {cohort} to tell apart, got {count}; "
            "choose another split, or divide the cohort anew"
        )


def write_features(features: Features, modalities: tuple[str, ...], path: Path) -> Path:
    """Write representation.npz: what the measures are made of, without the turned crops.

    `z` and `x_h` (N, C) float32, the mean over space of each crop in each modality; `subject`, `person` and `modality`
    (N,) strings; `crop` and `place` (N,).
    """
    straight = features.vectors[:, :, 0].astype(np.float32)
    with whole_file(path) as file:
        np.savez_compressed(
            file,
            z=straight[:, 0],
            x_h=straight[:, 1],
            subject=features.subject,
            person=features.person,
            modality=np.array(modalities)[features.modality],
            crop=features.crop,
            place=features.place,
        )
    return path


def _fresh(card: Mapping[str, Any], seed: int) -> nn.Module:
    """The model's architecture before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(card["architecture"])
