"""Fine-tuning for classification: from a cache whose subjects have classes to a run folder with a model in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from medprism.data.cache import Cache, Entry
from medprism.errors import UserError, expect
from medprism.methods.classification import Classification, ClassificationConfig
from medprism.methods.template_copies import CopiesConfig
from medprism.methods.template_training import TemplateClassification
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.prism import NetworkConfig
from medprism.training.card import common
from medprism.training.fill import Fill
from medprism.training.fit import Compute, Plan, Ship, begin, fit, where
from medprism.training.module import Objective, OptimiserConfig
from medprism.training.patches import PatchConfig, Patches, check_size
from medprism.training.run import Resume, plain, refuse_folder
from medprism.training.share import check_fraction, share_of
from medprism.training.start import Part, Start


def train_classification(
    *,
    data: Path,
    out: Path,
    init: Path | None,
    part: Part,
    classification: ClassificationConfig,
    classifier: ClassifierConfig,
    network: NetworkConfig,
    templates: Path | None,
    copies: CopiesConfig,
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
    """Train a classifier; the arguments are those of `medprism finetune classify`.

    Raises:
        UserError: data, start, configuration or folder do not fit together.
    """
    expect(epochs >= 1, "1 or more", "epochs", epochs)
    check_fraction(fraction)
    refuse_folder(out, resume=resume, force=force)
    cache = Cache.open(data)
    start, fill = Start.of(init, part, network, cache), Fill.of(templates, copies, cache)
    training = share_of(cache.subjects("training"), fraction, seed, by_class=True)
    validation = cache.subjects("validation")
    if fill is not None:
        fill.check(training, validation, patches.size, classification.full)
    classes = named_classes(cache.classes, training, validation)
    config: dict[str, Any] = {
        "task": "classification",
        "data": str(data.resolve()),
        "split_hash": cache.split_hash,
        "init": start.identity,
        "part": part if init is not None else None,
        "classification": plain(classification),
        "classifier": plain(classifier),
        "network": plain(start.network),
        **(fill.settings if fill else {}),
        "patches": plain(patches),
        "optimiser": plain(optimiser),
        "epochs": epochs,
        "ship": ship,
        "fraction": fraction,
        "precision": compute.precision,
        "seed": seed,
    }
    begin(seed)
    # Where every sub-volume of a batch is seen through one scan, nothing is weighed and the gates have no gradient.
    trainer = where(compute, unused=classifier.fusion == "gates")
    size = start.patch_size or patches.size
    model = Classifier(start.network, classifier, len(cache.modalities), len(classes), size)
    check_size(model.prism, patches.size)
    start.fill(model)

    def card(shipped: Classifier, score: float) -> dict[str, Any]:
        seen = (*start.seen, *(fill.seen if fill else ()))
        return {
            "task": "classification",
            **common(cache, shipped, shipped.prism, config, seen=seen, training=training),
            "patch_size": list(patches.size),
            "classes": classes,
            "initialised_from": start.identity,
            "validation_balanced_accuracy": score,
            **(fill.card if fill else {}),
        }

    values = list(classes.values())
    trained, validated = ([_count(entries)[value] for value in values] for entries in (training, validation))
    task = Classification(classification, values, trained, validated, cache.modalities, seed)
    objective: Objective = task
    if fill is not None:
        objective = TemplateClassification(task, fill.copies(seed), fill.config.consistency)
    plan = Plan(
        title="fine-tuning",
        network=model,
        objective=objective,
        loaders=Patches(cache, patches, seed, trainer["devices"] * trainer["num_nodes"], training),
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        config=config,
        card=lambda shipped, score: card(cast(Classifier, shipped), score),
        trainer=trainer,
        compute=compute,
        beside=None if fill is None else fill.beside,
    )
    return fit(plan, out, resume=resume, force=force)


def named_classes(names: Mapping[str, int], training: Sequence[Entry], validation: Sequence[Entry]) -> dict[str, int]:
    """Name -> value of the classes that are trained for, by value.

    Args:
        names: those that the cohort declares; where it declares none, `class 0` and so on, of what there is.
        training: its training split.
        validation: its validation split.

    Raises:
        UserError: a subject has no class, there are not two, or a declared class has no training subject.
    """
    bare = [entry.subject for entry in (*training, *validation) if entry.class_label is None]
    if bare:
        more = f" and {len(bare) - 5} more" if len(bare) > 5 else ""
        raise UserError(
            f"expected a class for every training and validation subject, got none for {', '.join(bare[:5])}{more}; "
            "add `class` to them in the cohort file or leave these subjects out"
        )
    counts = _count(training)
    classes = dict(names) or {f"class {value}": value for value in counts}
    classes = dict(sorted(classes.items(), key=lambda item: item[1]))
    never = [name for name, value in classes.items() if not counts[value]]
    strange = [f"{entry.subject} ({entry.class_label})" for entry in validation if not counts[_class(entry)]]
    if never or strange:
        got = f"none of {', '.join(never)}" if never else f"validation subjects of others: {', '.join(strange[:5])}"
        raise UserError(
            f"expected a training subject of every class, got {got}; split the cohort anew, or take the class out of it"
        )
    if len(classes) < 2:
        raise UserError(f"expected two classes or more, got {', '.join(classes) or 'none'}; there is nothing to tell")
    return classes


def _class(entry: Entry) -> int:
    assert entry.class_label is not None
    return entry.class_label


def _count(entries: Sequence[Entry]) -> Counter[int]:
    return Counter(_class(entry) for entry in entries)
