"""What `synthesize` prints: what was given, what is absent, what is made, and how good that was when measured."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medprism.data.cohort import Cohort
from medprism.inference.expectation import interval, measured
from medprism.inference.jobs import Job
from medprism.inference.model import Model
from medprism.inference.progress import title

_UNITS = {"psnr": " dB", "ssim": ""}


def one_subject(model: Model, job: Job) -> None:
    """Each modality of the model: given, to be made with the quality to expect, or absent."""
    table = Table("modality", "", "expected, as evaluated", title=title(model.card), title_justify="left")
    for name in model.modalities:
        if name not in (*model.takes, *model.makes):
            continue
        made = name in job.outputs
        role = f"given: {escape(job.images[name].name)}" if name in job.images else ""
        role = (
            f"{role}; generated again" if role and made else role or ("generated" if made else "absent, not asked for")
        )
        table.add_row(name, role, expected(model.card, job.images, name) if made else "")
    Console(highlight=False).print(table)


def whole_cohort(model: Model, cohort: Cohort, jobs: Sequence[Job]) -> None:
    """Each subset of given scans: how many subjects have it and what is made for them."""
    table = Table(
        "subjects", "given", "generated, expected, as evaluated", title=title(model.card), title_justify="left"
    )
    kinds = Counter((tuple(job.images), tuple(job.outputs)) for job in jobs)
    for (given, made), count in kinds.most_common():
        table.add_row(str(count), " ".join(given), "\n".join(f"{n}  {expected(model.card, given, n)}" for n in made))
    strange = sum(not set(subject.images) & set(model.takes) for subject in cohort.subjects())
    if strange:
        table.add_row(str(strange), "none that the model knows", "nothing")
    if complete := len(cohort.subjects()) - len(jobs) - strange:
        table.add_row(str(complete), "all that is asked for", "nothing")
    Console(highlight=False).print(table)


def expected(card: Mapping[str, Any], given: Collection[str], target: str) -> str:
    """The measured quality of a target from just these scans, as the card's metrics have it.

    Args:
        card: model.json; its `metrics` are rows as in metrics.json, if it has any.
        given: canonical names.
        target: canonical name.
    """
    told = []
    for metric, unit in _UNITS.items():
        row = measured(card, given, protocol="strict", target=target, region="foreground", metric=metric)
        if row is not None:
            told.append(f"{metric.upper()} {row['mean']:.3g}{unit}{interval(row)}")
    return ", ".join(told) or "not measured"
