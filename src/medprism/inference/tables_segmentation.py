"""What `segment` prints: what was given, what is absent, the Dice to expect of just that, and the volumes found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medprism.data.cohort import Cohort
from medprism.inference.expectation import interval
from medprism.inference.jobs import Job
from medprism.inference.progress import title
from medprism.inference.segmentation import SegmentationModel


def one_subject(model: SegmentationModel, job: Job) -> None:
    """Each modality of the model, given or absent; each region with the Dice to expect from what is given."""
    scans = Table("modality", "", title=title(model.card), title_justify="left")
    for name in model.modalities:
        scans.add_row(name, f"given: {escape(job.images[name].name)}" if name in job.images else "absent")
    console = Console(highlight=False)
    console.print(scans)
    found = model.expected(job.images)
    if found is None:
        console.print(f"Dice to expect from {' '.join(job.images)}: not evaluated")
        return
    split = next(iter(found.values()))["split"] or "evaluation"
    heading = f"Dice to expect from {' '.join(job.images)}, as measured on {split} subjects"
    table = Table("region", "Dice", "subjects", title=heading, title_justify="left")
    for region, row in found.items():
        table.add_row(escape(region), f"{row['mean']:.3g}{interval(row)}", str(row["n"]))
    console.print(table)


def whole_cohort(model: SegmentationModel, cohort: Cohort, jobs: Sequence[Job]) -> None:
    """Each subset of given scans: how many subjects have it, what is absent, the Dice to expect."""
    table = Table("subjects", "given", "absent", "Dice to expect", title=title(model.card), title_justify="left")
    for given, count in Counter(tuple(job.images) for job in jobs).most_common():
        found = model.expected(given) or {}
        told = "\n".join(f"{escape(region)} {row['mean']:.3g}{interval(row)}" for region, row in found.items())
        absent = " ".join(name for name in model.modalities if name not in given)
        table.add_row(str(count), " ".join(given), absent or "nothing", told or "not evaluated")
    if strange := len(cohort.subjects()) - len(jobs):
        table.add_row(str(strange), "none that the model knows", "", "no map")
    Console(highlight=False).print(table)


def volumes(sidecar: Path) -> None:
    """The volume of each region of a finished map, as its sidecar tells."""
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    found = ", ".join(f"{escape(region)} {volume:.3g} ml" for region, volume in told["VolumesMl"].items())
    Console(highlight=False).print(f"Found: {found}", soft_wrap=True)
