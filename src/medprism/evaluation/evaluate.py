"""The verb `evaluate`: a model, a prepared cohort, a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from medprism.errors import UserError


def evaluate(
    model: Path,
    *,
    data: Path,
    out: Path,
    split: Literal["test", "validation", "training"] = "test",
    protocols: tuple[Literal["strict", "paper"], ...] = ("strict",),
    given: tuple[Literal["single", "rest"], ...] = ("single",),
    device: str = "auto",
    precision: Literal["32", "bf16"] = "32",
    seed: int = 0,
    limit: int | None = None,
    representation: bool = False,
    record: bool = False,
    force: bool = False,
) -> Path:
    """Score a model on a split, every source to every target, beside the trivial rivals `identity` and `lookup`.

    Args:
        model: model folder, or the folder of the run that made it.
        data: cache written by `medprism prepare`, with the model's modalities and spacing.
        out: folder for metrics.json, per_subject.csv and what `medprism report` needs.
        split: which subjects; a model is not scored on persons that it was trained on unless the split says so.
        protocols: `strict` is the headline; `paper` is what the authors' test script does, and leaks the target.
        given: `single`, each scan alone; `rest`, all other scans together.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent processors and a little less exact.
        seed: of the bootstrap.
        limit: only the first so many subjects, for a quick look.
        representation: instead of the task, measure what the model's encoder represents: modality gap, retrieval of a
            person across modalities, what linear probes tell. Give it an `--out` of its own.
        record: also write the scores into the model's card, where `medprism synthesize` and `info` find them.
        force: replace an evaluation that is there.

    Returns:
        The path of metrics.json.

    Raises:
        UserError: model, cache and folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cache import Cache
    from medprism.evaluation.transfer import evaluate_transfer
    from medprism.inference.model import Model
    from medprism.models.folder import add_to_card

    if representation:
        from medprism.evaluation.representation.run import evaluate_representation

        if record:
            raise UserError("expected --record with the scores of a task, got it with --representation; leave it out")
        return evaluate_representation(
            model,
            Cache.open(data),
            out=out,
            split=split,
            device=device,
            precision=precision,
            seed=seed,
            limit=limit,
            force=force,
        )

    cache = Cache.open(data)
    metrics = evaluate_transfer(
        Model.load(model, device, precision=precision),
        cache,
        out=out,
        split=split,
        protocols=protocols,
        given=given,
        seed=seed,
        limit=limit,
        force=force,
    )
    if record:
        results = json.loads(metrics.read_text())
        rows = [row for row in results["rows"] if row["method"] == "model" and row["target"] is not None]
        add_to_card(model, metrics={"split": results["split"], "split_hash": results["split_hash"], "rows": rows})
    return metrics
