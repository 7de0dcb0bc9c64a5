"""What a sweep has to do: its trainings in an order in which each finds what it starts from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.data.cache import Cache

PRETRAIN, TEACHER, SEGMENT, CLASSIFY = "pretrain", "teacher", "finetune segment", "finetune classify"
STAGES = (PRETRAIN, TEACHER, SEGMENT, CLASSIFY)
"""What a variant may have options of, in the order in which they are trained. A teacher is trained by `finetune
segment` too; what is behind it is its student."""
CHAINS = ({PRETRAIN, SEGMENT}, {PRETRAIN, CLASSIFY}, {TEACHER, SEGMENT})
"""Which of them may follow each other; any part of one is a variant, too."""
HANDED_ON = {PRETRAIN: "init", TEACHER: "taught_by"}
"""The option of the next stage that takes the run of a stage."""
TEMPLATES = "templates"
"""The option that takes it besides where a variant says `templates: pretrain`."""


@dataclass(frozen=True)
class Job:
    """One training, and the evaluation behind the last one of a variant.

    Attributes:
        verb: the command, `pretrain`, `finetune segment` or `finetune classify`.
        arguments: of its function.
        place: `<out>/<variant>/seed-<s>` if this training is the variant's last, else None.
        stage: its place in `STAGES`; those of one stage do not wait for each other.
    """

    verb: str
    arguments: dict[str, Any]
    place: Path | None
    stage: int


def verbs() -> dict[str, Callable[..., Path]]:
    """The functions of the commands."""
    from medprism import finetune
    from medprism.training.pretrain import pretrain

    return {PRETRAIN: pretrain, SEGMENT: finetune.finetune_segment, CLASSIFY: finetune.finetune_classify}


def queue(
    data: Path,
    out: Path,
    base: Mapping[str, str],
    variants: Mapping[str, Mapping[str, Any]],
    seeds: list[int],
    common: list[str],
) -> Iterator[Job]:
    """All trainings in the order in which they are run, a pre-training or teacher before what starts from it.

    Args:
        data: as of `medprism.sweep.sweep`.
        out: likewise.
        base: stage -> configuration.
        variants: name -> stage -> changes; `config` among them takes the place of the base.
        seeds: of the trainings.
        common: flags of all of them, which a variant may override.
    """
    from medprism.options import parse, parser_of

    parsers = {verb: parser_of(verb, function, "") for verb, function in verbs().items()}
    made: dict[str, Path] = {}  # what makes a training the one that it is -> where it is
    for name, stages in variants.items():
        _check(name, stages, base)
        for seed in seeds:
            place, handed = out / name / f"seed-{seed}", dict[str, Path]()
            chain = [stage for stage in STAGES if stage in stages]
            for stage in chain:
                last, verb = stage == chain[-1], SEGMENT if stage == TEACHER else stage
                changes = dict(stages[stage])
                config = changes.pop("config", base[stage])
                if "init" in handed and changes.get(TEMPLATES) == PRETRAIN:
                    handed[TEMPLATES] = handed["init"]
                    del changes[TEMPLATES]
                words = [f"--config={config}", f"--data={data}", "--out=.", f"--seed={seed}", *common]
                words += [f"--{option}={_typed(value)}" for option, value in changes.items()]
                arguments = {**parse(parsers[verb], verb, words), **handed}
                arguments["out"] = place / ("run" if last else stage)
                handed = dict[str, Path]()
                if stage in HANDED_ON:
                    run = made.setdefault(repr({**arguments, "out": None}), arguments["out"])
                    handed = {HANDED_ON[stage]: run}
                    if run != arguments["out"] and not last:
                        continue  # it is that of a variant before
                    arguments["out"] = run
                yield Job(verb, arguments, place if last else None, STAGES.index(stage))


def _check(name: str, stages: Mapping[str, Any], base: Mapping[str, str]) -> None:
    """Refuse a variant that is none of the stages and not one after the other."""
    strange = [stage for stage in stages if stage not in base or stage not in STAGES]
    if strange or not stages:
        known, got = " or ".join(STAGES), ", ".join(strange) or "none"
        raise UserError(f"expected options of {known}, each with a base, in variant {name}, got {got}")
    if not any(set(stages) <= chain for chain in CHAINS):
        known = " or ".join(" and ".join(stage for stage in STAGES if stage in chain) for chain in CHAINS)
        raise UserError(f"expected {known} in variant {name}, got {' and '.join(stages)}; make two variants of it")
    for verb, changes in stages.items():
        if not isinstance(changes, Mapping):
            raise UserError(f"expected options of {verb} in variant {name}, as in `{verb}: {{}}`, got {changes}")
        taken = {"out", "resume", "force"} | {
            HANDED_ON[stage] for stage in stages if stage in HANDED_ON and stage != verb
        }
        if own := sorted(taken.intersection(changes)):
            raise UserError(f"expected options that a sweep leaves open in variant {name}, got {', '.join(own)}")


def _typed(value: object) -> str:
    """A value of YAML as it is typed behind an option."""
    return json.dumps(value).replace('"', "")


def require_labels(jobs: list[Job], cache: Cache) -> None:
    """Stop if a fine-tuning that has not begun yet would miss labels or classes, or one of them in its share.

    Raises:
        UserError: one would.
    """
    from medprism.training.classify import named_classes
    from medprism.training.segment import label_voxels
    from medprism.training.share import share_of

    training, validation = cache.subjects("training"), cache.subjects("validation")
    new = [job for job in jobs if job.verb != PRETRAIN and not job.arguments["out"].exists()]
    for verb, fraction, seed in sorted({(job.verb, job.arguments["fraction"], job.arguments["seed"]) for job in new}):
        if verb == CLASSIFY:
            named_classes(cache.classes, share_of(training, fraction, seed, by_class=True), validation)
        else:
            label_voxels(cache, share_of(training, fraction, seed))
