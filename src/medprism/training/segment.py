"""Fine-tuning for segmentation: from a labelled cache to a run folder with a model in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from medprism.data.cache import Cache, Entry
from medprism.errors import UserError, expect
from medprism.methods.segmentation import Segmentation, SegmentationConfig
from medprism.training.card import common
from medprism.training.choice import Choice
from medprism.training.fit import Compute, Plan, Ship, begin, fit, where
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig, Patches
from medprism.training.run import Resume, plain, refuse_folder
from medprism.training.share import check_fraction, share_of


def train_segmentation(
    *,
    data: Path,
    out: Path,
    choice: Choice,
    segmentation: SegmentationConfig,
    patches: PatchConfig,
    optimiser: OptimiserConfig,
    epochs: int,
    ship: Ship,
    fraction: float,
    compute: Compute,
    seed: int,
    resume: Resume,
    force: bool,
) -> Path:
    """Train a network that segments: the verb `finetune segment`, its options about networks gathered in `choice`.

    Raises:
        UserError: data, start, configuration or folder do not fit together.
    """
    expect(epochs >= 1, "1 or more", "epochs", epochs)
    check_fraction(fraction)
    refuse_folder(out, resume=resume, force=force)
    cache = Cache.open(data)
    family = choice.family(cache, segmentation)
    training = family.trained_on(share_of(cache.subjects("training"), fraction, seed))
    if family.fill is not None:
        family.fill.check(training, cache.subjects("validation"), patches.size, segmentation.full)
    classes, voxels = label_voxels(cache, training)
    regions = cache.regions or {name: [value] for name, value in cache.labels.items() if value}
    config: dict[str, Any] = {
        "task": "segmentation",
        "data": str(data.resolve()),
        "split_hash": cache.split_hash,
        **family.settings,
        "segmentation": plain(segmentation),
        "patches": plain(patches),
        "optimiser": plain(optimiser),
        "epochs": epochs,
        "ship": ship,
        "fraction": fraction,
        "precision": compute.precision,
        "seed": seed,
    }
    begin(seed)
    trainer = where(compute, unused=family.idle)
    network = family.network(cache, len(classes), patches.size)
    inner = getattr(network, "prism", network)
    task = Segmentation(segmentation, classes, voxels, regions, cache.modalities, seed)

    def card(shipped: nn.Module, score: float) -> dict[str, Any]:
        return {
            "task": "segmentation",
            **common(cache, shipped, inner, config, seen=family.seen, training=training),
            "patch_size": list(patches.size),
            "labels": cache.labels,
            "regions": regions,
            "classes": list(classes),
            "validation_dice": score,
            **family.card,
        }

    plan = Plan(
        title="fine-tuning",
        network=network,
        objective=family.objective(task, network),
        loaders=Patches(cache, patches, seed, trainer["devices"] * trainer["num_nodes"], training),
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        config=config,
        card=card,
        trainer=trainer,
        compute=compute,
        beside=None if family.fill is None else family.fill.beside,
    )
    return fit(plan, out, resume=resume, force=force)


def label_voxels(cache: Cache, training: Sequence[Entry]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The label values that are trained for, and how many training voxels each has.

    Raises:
        UserError: a training or validation subject has no label, or a declared class has no voxel in training.
    """
    bare = [entry.subject for entry in (*training, *cache.subjects("validation")) if not entry.labelled]
    if bare:
        more = f" and {len(bare) - 5} more" if len(bare) > 5 else ""
        raise UserError(
            f"expected a label for every training and validation subject, got none for {', '.join(bare[:5])}{more}; "
            "add them to the cohort file or leave these subjects out"
        )
    classes = tuple(sorted({0, *cache.labels.values()}))
    counts = np.zeros(max(classes) + 1, dtype=np.int64)
    for entry in training:
        label = entry.label()
        assert label is not None
        counts += np.bincount(label.ravel(), minlength=len(counts))
    if never := [name for name, value in cache.labels.items() if value and not counts[value]]:
        told = "take it out of `labels` and `regions` in the cohort file, or split the cohort anew"
        if len(training) < (every := len(cache.subjects("training"))):
            told = f"these are {len(training)} of {every} subjects: give a larger --fraction or more persons"
        raise UserError(
            f"expected voxels of every class in the training labels, got none of {', '.join(never)}; {told}"
        )
    return classes, tuple(int(counts[value]) for value in classes)
