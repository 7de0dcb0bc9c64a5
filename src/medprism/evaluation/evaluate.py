"""The verb `evaluate`: a model, a prepared cohort, a split. The model's task decides how it is scored."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from medprism.errors import UserError

ONLY_FOR = {
    "protocols": ("transfer",),
    "given": ("transfer",),
    "subsets": ("segmentation", "classification"),
    "small": ("segmentation",),
    "detection": ("segmentation",),
}
"""Option -> the tasks that it fits."""


def evaluate(
    model: Path,
    *,
    data: Path,
    out: Path,
    split: Literal["test", "validation", "training"] = "test",
    protocols: tuple[Literal["strict", "paper"], ...] = ("strict",),
    given: tuple[Literal["single", "rest"], ...] = ("single",),
    subsets: tuple[str, ...] = ("all",),
    small: dict[str, float] | None = None,
    detection: bool = False,
    device: str = "auto",
    precision: Literal["32", "bf16"] = "32",
    scheduler: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    representation: bool = False,
    record: bool = False,
    force: bool = False,
) -> Path:
    """Score a model on a split, as its task asks.

    Transfer: every source to every target, beside the trivial rivals `identity` and `lookup`. Segmentation: every
    subset of the scans and every region, Dice and HD95. Classification: every subset, accuracy, AUC and F1.

    Args:
        model: model folder, or the folder of the run that made it.
        data: cache written by `medprism prepare`, with the model's modalities and spacing.
        out: folder for metrics.json, per_subject.csv and what `medprism report` needs.
        split: which subjects; a model is not scored on persons that it was trained on unless the split says so.
        protocols: of transfer; `strict` is the headline; `paper` is what the authors' test script does, and leaks the
            target.
        given: of transfer; `single`, each scan alone; `rest`, all other scans together.
        subsets: of segmentation and classification; which scans are given, such as `t1n,t1n+t2f`; `all` are 2^M − 1.
        small: of segmentation; also score outputs without regions of less volume in mm³, as in `--small.ET 500`.
        detection: of segmentation; also score scans as having lesions or not; done anyway where some scan has none.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent processors and a little less exact.
        scheduler: address of a dask.distributed scheduler whose workers score the subjects, such as
            `tcp://10.0.0.1:8786`; they must see the same files under the same paths.
        seed: of the bootstrap.
        limit: only the first so many subjects, for a quick look.
        representation: instead of the task, measure what the model's encoder represents: modality gap, retrieval of a
            person across modalities, what linear probes tell. Give it an `--out` of its own.
        record: also write the scores into the model's card, where `medprism synthesize`, `segment` and `info` find
            them.
        force: replace an evaluation that is there.

    Returns:
        The path of metrics.json.

    Raises:
        UserError: model, cache, options and folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cache import Cache
    from medprism.inference.trained import task_of, use_of
    from medprism.inference.workers import load_for

    options = {
        "protocols": protocols,
        "given": given,
        "subsets": subsets,
        "small": small,
        "detection": detection,
    }
    common: dict[str, Any] = {"out": out, "split": split, "seed": seed, "limit": limit, "force": force}
    if representation:
        from medprism.evaluation.representation.run import evaluate_representation

        if scheduler is not None:
            raise UserError(
                "expected --scheduler with the scores of a task, got it with --representation; leave it out"
            )
        if record:
            raise UserError("expected --record with the scores of a task, got it with --representation; leave it out")
        _refuse_others(options, "representation")
        return evaluate_representation(model, Cache.open(data), device=device, precision=precision, **common)

    task = task_of(model)
    _refuse_others(options, task)
    cache = Cache.open(data if scheduler is None else Path(data).absolute())  # workers start from other folders
    load = partial(load_for, path=model, device=device, precision=precision, scheduler=scheduler)
    if task == "transfer":
        from medprism.evaluation.transfer import evaluate_transfer
        from medprism.inference.model import Model

        images, workers = load(Model)
        metrics = evaluate_transfer(images, cache, protocols=protocols, given=given, workers=workers, **common)
    elif task == "segmentation":
        from medprism.evaluation.segmentation import evaluate_segmentation
        from medprism.inference.segmentation import SegmentationModel

        labels, workers = load(SegmentationModel)
        metrics = evaluate_segmentation(
            labels, cache, subsets=subsets, small=small, detection=detection or None, workers=workers, **common
        )
    elif task == "classification":
        from medprism.evaluation.classification import evaluate_classification
        from medprism.inference.classification import ClassificationModel

        classes, workers = load(ClassificationModel)
        metrics = evaluate_classification(classes, cache, subsets=subsets, workers=workers, **common)
    else:
        raise UserError(
            f"expected a model for transfer, segmentation or classification, got one for {task} in {model}; "
            f"{use_of(task)}"
        )
    if record:
        _record(metrics, model)
    return metrics


def _refuse_others(options: Mapping[str, object], task: str) -> None:
    """Stop if an option was given that means nothing here."""
    usual = {name: parameter.default for name, parameter in inspect.signature(evaluate).parameters.items()}
    for name, value in options.items():
        if task not in ONLY_FOR[name] and value != usual[name]:
            fitting = " or ".join(ONLY_FOR[name])
            got = "it with --representation" if task == "representation" else f"one for {task}"
            raise UserError(f"expected --{name} with a model for {fitting}, got {got}; leave it out")


def _record(metrics: Path, model: Path) -> None:
    """Put the model's rows into its card: those of single pairs, or of subsets and the means over them."""
    from medprism.evaluation.classes import CLASS_METRICS
    from medprism.evaluation.subset_summaries import OVERLAP
    from medprism.models.folder import add_to_card

    results = json.loads(metrics.read_text(encoding="utf-8"))
    known = (*OVERLAP, *CLASS_METRICS)
    rows = [row for row in results["rows"] if row["method"] == "model" and (row["target"] or row["metric"] in known)]
    add_to_card(model, metrics={"split": results["split"], "split_hash": results["split_hash"], "rows": rows})
