"""What `segment` and `classify` print: what was given, what is absent, how good just that is, and what was found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medprism.data.cohort import Cohort
from medprism.inference.classification import ClassificationModel
from medprism.inference.expectation import interval
from medprism.inference.jobs import Job
from medprism.inference.progress import title
from medprism.inference.segmentation import SegmentationModel

SubsetModel = SegmentationModel | ClassificationModel


def one_subject(model: SubsetModel, job: Job) -> None:
    """Each modality of the model, given or absent; how good the result is to be with what is given."""
    scans = Table("modality", "", title=title(model.card), title_justify="left")
    for name in model.modalities:
        scans.add_row(name, f"given: {escape(job.images[name].name)}" if name in job.images else _absent(model))
    console = Console(highlight=False)
    console.print(scans)
    of, given = _measure(model), " ".join(job.images)
    found = model.expected(job.images)
    if found is None:
        console.print(f"{of} to expect from {given}: not evaluated")
        return
    split = next(iter(found.values()))["split"] or "evaluation"
    heading = f"{of} to expect from {given}, as measured on {split} subjects"
    table = Table("", of, "subjects", title=heading, title_justify="left")
    for name, row in found.items():
        table.add_row(escape(name), f"{row['mean']:.3g}{interval(row)}", str(row["n"]))
    console.print(table)


def whole_cohort(model: SubsetModel, cohort: Cohort, jobs: Sequence[Job]) -> None:
    """Each subset of given scans: how many subjects have it, what is absent, how good the result is to be."""
    heading = f"{_measure(model)} to expect"
    table = Table("subjects", "given", _absent(model), heading, title=title(model.card), title_justify="left")
    for given, count in Counter(tuple(job.images) for job in jobs).most_common():
        found = model.expected(given) or {}
        told = "\n".join(f"{escape(name)} {row['mean']:.3g}{interval(row)}" for name, row in found.items())
        absent = " ".join(name for name in model.modalities if name not in given)
        table.add_row(str(count), " ".join(given), absent or "nothing", told or "not evaluated")
    if strange := len(cohort.subjects()) - len(jobs):
        table.add_row(str(strange), "none that the model knows", "", "left out")
    Console(highlight=False).print(table)


def volumes(sidecar: Path) -> None:
    """The volume of each region of a finished label map, as its sidecar tells."""
    told = json.loads(sidecar.read_text(encoding="utf-8"))["VolumesMl"]
    _found([f"{name} {volume:.3g} ml" for name, volume in told.items()])


def classes(result: Path) -> None:
    """How likely each class of a finished classification is, as its file tells; the likeliest first."""
    told = json.loads(result.read_text(encoding="utf-8"))["Probabilities"]
    _found([f"{name} {told[name]:.3f}" for name in sorted(told, key=lambda name: -float(told[name]))])


def _found(items: Sequence[str]) -> None:
    Console(highlight=False).print(f"Found: {escape(', '.join(items))}", soft_wrap=True)


def _absent(model: SubsetModel) -> str:
    return "absent" if model.filling is None else "absent, filled by templates"


def _measure(model: SubsetModel) -> str:
    return "Dice" if isinstance(model, SegmentationModel) else "Score"
