"""The verb `sweep`: one configuration in several variants and seeds, trained, evaluated and compared.

Ablation tables and curves of label efficiency are such sweeps. A variant is a pre-training, a fine-tuning, or one after
the other. What is done is kept, so a sweep that was killed goes on when it is called again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.data.cache import Cache

PRETRAIN, SEGMENT = "pretrain", "finetune segment"
STAGES = (PRETRAIN, SEGMENT)
"""The verbs that a variant may have options of, in the order in which they are called."""
EVALUATION, REPRESENTATION = "evaluation", "representation"
WIDTH = 150  # of the tables: in a narrow terminal or a log their lines wrap, and lose no digits


@dataclass(frozen=True)
class Job:
    """One training, and the evaluation behind the last one of a variant.

    Attributes:
        verb: one of `STAGES`.
        arguments: of its function.
        place: `<out>/<variant>/seed-<s>` if this training is the variant's last, else None.
    """

    verb: str
    arguments: dict[str, Any]
    place: Path | None


def sweep(
    *,
    data: Path,
    out: Path,
    variants: dict[str, dict[str, Any]],
    base: str | dict[str, str] = "quickstart",
    seeds: list[int] = [0],  # noqa: B006 - never changed; jsonargparse shows it in the help
    epochs: int | None = None,
    precision: Literal["32", "bf16"] = "32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    representation: bool = False,
) -> Path:
    """Train, evaluate and compare variants of a configuration, each with each seed.

    A variant that is pre-trained and then fine-tuned starts from its own pre-training; a pre-training with the same
    options as another variant's is run once.

    Args:
        data: cache written by `medprism prepare`.
        out: folder; each variant is in `<variant>/seed-<s>`: its training in `run`, the pre-training before it in
            `pretrain`, its evaluation beside them.
        variants: name of a variant: command: options that it changes, dotted, as in
            `no-prior: {pretrain: {network.prior: none}, finetune segment: {}}`; only the options where `base` is one
            name.
        base: command: shipped configuration of it, or a YAML file, that all variants start from; one name is of
            `medprism pretrain`.
        seeds: each variant is trained once with each.
        epochs: of each training; that of the base if not given.
        precision: of training and evaluation.
        device: of training and evaluation.
        representation: also measure and compare what each encoder represents, in `<variant>/seed-<s>/representation`:
            the modality gap and more with each part of the method on and off.

    Returns:
        The report that compares them.

    Raises:
        UserError: a variant names a command or an option that there is not, or a run in the folder has another
            configuration.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cache import Cache
    from medprism.evaluation.evaluate import evaluate
    from medprism.evaluation.representation.run import require_persons
    from medprism.evaluation.variants import print_represented, print_variants
    from medprism.report.page import report

    if not variants or not seeds:
        raise UserError("expected variants and seeds to sweep over, got none; see the shipped --config table4")
    if isinstance(base, str):
        base, variants = {PRETRAIN: base}, {name: {PRETRAIN: changes} for name, changes in variants.items()}
    common = [f"--compute.precision={precision}", f"--compute.device={device}", "--resume=auto"]
    common += [] if epochs is None else [f"--epochs={epochs}"]
    queue = list(_queue(Path(data), Path(out), base, variants, seeds, common))  # all are parsed before one is trained
    cache = Cache.open(data)  # what would fail after hours of training fails now
    if representation:
        require_persons(cache.subjects("test"), split="test", cohort=cache.name)
    _require_labels(queue, cache)

    console, verbs, parts = Console(), _verbs(), [EVALUATION, *([REPRESENTATION] if representation else [])]
    for number, job in enumerate(queue, 1):
        console.rule(f"{number} of {len(queue)}: {job.verb}, {job.arguments['out'].relative_to(out)}")
        run = verbs[job.verb](**job.arguments)
        if job.place is None:
            continue
        for part in parts:
            place = job.place / part
            if not (place / "metrics.json").exists():
                measured = part == REPRESENTATION
                evaluate(run, data=Path(data), out=place, precision=precision, device=device, representation=measured)
    done = {part: {name: [Path(out) / name / f"seed-{s}" / part for s in seeds] for name in variants} for part in parts}
    wide = Console(width=max(console.width, WIDTH))
    for part, folders in done.items():
        (print_represented if part == REPRESENTATION else print_variants)(folders, wide)
    shown = [folder for folders in done.values() for own in folders.values() for folder in own]
    return report(shown, out=Path(out) / "report.html", force=True)


def _verbs() -> dict[str, Callable[..., Path]]:
    from medprism import finetune
    from medprism.training.pretrain import pretrain

    return {PRETRAIN: pretrain, SEGMENT: finetune.finetune_segment}


def _queue(
    data: Path,
    out: Path,
    base: Mapping[str, str],
    variants: Mapping[str, Mapping[str, Any]],
    seeds: list[int],
    common: list[str],
) -> Iterator[Job]:
    """All trainings in the order in which they are run, a pre-training before what starts from it.

    Args:
        data: as of `sweep`.
        out: as of `sweep`.
        base: command -> configuration.
        variants: name -> command -> changes.
        seeds: of the trainings.
        common: flags of all of them, which a variant may override.
    """
    from medprism.options import parse, parser_of

    parsers = {verb: parser_of(verb, function, "") for verb, function in _verbs().items()}
    pretrained: dict[str, Path] = {}  # what makes a pre-training the one that it is -> where it is
    for name, stages in variants.items():
        _check(name, stages, base)
        for seed in seeds:
            run, place = None, out / name / f"seed-{seed}"
            chain = [verb for verb in STAGES if verb in stages]
            for verb in chain:
                last = verb == chain[-1]
                words = [f"--config={base[verb]}", f"--data={data}", "--out=.", f"--seed={seed}", *common]
                words += [f"--{option}={_typed(value)}" for option, value in stages[verb].items()]
                arguments = parse(parsers[verb], verb, words)
                arguments["out"] = place / ("run" if last else PRETRAIN)
                if run is not None:
                    arguments["init"] = run
                if verb == PRETRAIN:
                    run = pretrained.setdefault(repr({**arguments, "out": None}), arguments["out"])
                    if run != arguments["out"] and not last:
                        continue  # it is that of a variant before
                    arguments["out"] = run
                yield Job(verb, arguments, place if last else None)


def _check(name: str, stages: Mapping[str, Any], base: Mapping[str, str]) -> None:
    """Refuse a variant that is no pre-training, no fine-tuning and not one after the other."""
    strange = [verb for verb in stages if verb not in base or verb not in STAGES]
    if strange or not stages:
        known, got = " or ".join(STAGES), ", ".join(strange) or "none"
        raise UserError(f"expected options of {known}, each with a base, in variant {name}, got {got}")
    for verb, changes in stages.items():
        if not isinstance(changes, Mapping):
            raise UserError(f"expected options of {verb} in variant {name}, as in `{verb}: {{}}`, got {changes}")
        taken = {"out", "resume", "force"} | ({"init"} if len(stages) > 1 else set())
        if own := sorted(taken.intersection(changes)):
            raise UserError(f"expected options that a sweep leaves open in variant {name}, got {', '.join(own)}")


def _typed(value: object) -> str:
    """A value of YAML as it is typed behind an option."""
    return json.dumps(value).replace('"', "")


def _require_labels(queue: list[Job], cache: Cache) -> None:
    """Stop if a fine-tuning that has not begun yet would miss labels, or a class in its share of them."""
    from medprism.training.segment import label_voxels, share_of

    new = [job.arguments for job in queue if job.verb == SEGMENT and not job.arguments["out"].exists()]
    for fraction, seed in sorted({(each["fraction"], each["seed"]) for each in new}):
        label_voxels(cache, share_of(cache.subjects("training"), fraction, seed))
