"""What is to be made from which files and where it goes: one job a subject, whose outputs say whether it is done."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

import medprism
from medprism.data.cohort import Cohort
from medprism.data.subject import Subject, without_volume
from medprism.errors import UserError
from medprism.inference.inputs import by_name
from medprism.io.atomic import whole_file
from medprism.io.nifti import sidecar_path

# Folder, entities and suffix of each modality in BIDS; `ct` is an extension that the standard does not have yet.
_BIDS = {
    "t1n": ("anat", "", "T1w"),
    "t1c": ("anat", "_ce-gadolinium", "T1w"),
    "t2w": ("anat", "", "T2w"),
    "t2f": ("anat", "", "FLAIR"),
    "pd": ("anat", "", "PDw"),
    "mra": ("anat", "", "angio"),
    "dwi": ("dwi", "", "dwi"),
    "adc": ("dwi", "", "ADC"),
    "ct": ("ct", "", "ct"),
    "pet": ("pet", "", "pet"),
    "nac": ("pet", "_rec-nac", "pet"),
}


@dataclass(frozen=True)
class Job:
    """One subject.

    Attributes:
        subject: its name in messages, or None for files given by hand.
        images: modality -> file, the given scans.
        outputs: what is to be made, such as a modality -> file.
        sources: how the sidecars name the given files, in the order of `images`.
    """

    subject: str | None
    images: Mapping[str, Path]
    outputs: Mapping[str, Path]
    sources: Sequence[str]


def require_one(image: Mapping[str, Path] | None, data: Path | None, scheduler: str | None = None) -> None:
    """Stop unless there is one source of scans, and a scheduler only with a cohort.

    Raises:
        UserError: both or none are given, or one patient is to be spread over workers.
    """
    if image and scheduler is not None:
        raise UserError(
            "expected a cohort (--data cohort.json) with --scheduler, got scans of one patient; leave it out"
        )
    if bool(image) == (data is not None):
        raise UserError("expected either scans (--image.t1n FILE …) or a cohort (--data cohort.json); give one of them")


def job_of_files(
    image: Mapping[str, Path], outputs: Callable[[Sequence[str]], Mapping[str, Path]], modalities: Sequence[str]
) -> Job:
    """The job of files given by hand.

    Args:
        image: modality (any alias) -> file.
        outputs: given modalities, in the model's order -> what is to be made and where.
        modalities: what the model knows.

    Raises:
        UserError: names that the model does not know.
    """
    images = {name: Path(path) for name, path in by_name(image, modalities).items()}
    return Job(None, images, outputs(list(images)), [path.name for path in images.values()])


def jobs_of_cohort(
    cohort: Cohort, modalities: Sequence[str], outputs: Callable[[Subject, Sequence[str]], Mapping[str, Path]]
) -> list[Job]:
    """A job for each subject that has a scan which the model knows, and for which something is to be made.

    Args:
        cohort: whose subjects, all splits.
        modalities: what the model knows.
        outputs: subject and its scans that the model knows, in its order -> what is to be made and where.

    Raises:
        UserError: no subject with a scan that the model knows, or an output among real scans.
    """
    jobs = []
    for subject in cohort.subjects():
        relatives = {name: subject.images[name] for name in modalities if name in subject.images}
        made = outputs(subject, list(relatives)) if relatives else {}
        if made:
            sources = [("bids:raw:" if is_bids(cohort) else "") + relative for relative in relatives.values()]
            jobs.append(Job(subject.subject, {n: cohort.path(r) for n, r in relatives.items()}, made, sources))
    if not any(set(modalities) & set(subject.images) for subject in cohort.subjects()):
        raise UserError(f"expected scans of {', '.join(modalities)}, which the model knows, got none in {cohort.name}")
    raw = [cohort.path(relative) for subject in cohort.subjects() for relative in subject.images.values()]
    refuse_beside(jobs, raw)
    return jobs


def place(cohort: Cohort, subject: Subject, output: str, source: str) -> Path:
    """Where an output of a subject goes, relative to the command's folder.

    Args:
        cohort: whose layout decides: `<subject>/<output>.nii.gz`, or as BIDS has it for derivatives.
        subject: whose.
        output: modality of a synthetic scan, or `seg`.
        source: modality of the scan that the output is on or was made from.
    """
    if not is_bids(cohort):
        return Path(subject.subject, f"{output}.nii.gz")
    # Participant and session as in the source's name: sub-1/ses-2/anat/sub-1_ses-2_desc-synthetic_FLAIR.nii.gz
    name = Path(subject.images[source]).name
    visit = [found[0] for key in ("sub", "ses") if (found := re.search(rf"{key}-[A-Za-z0-9]+", name))]
    if output == "seg":
        folder, ending = _BIDS[source][0], "_desc-model_dseg"
    else:
        folder, entities, suffix = _BIDS[output]
        ending = f"{entities}_desc-synthetic_{suffix}"
    return Path(*visit, folder, f"{'_'.join(visit)}{ending}.nii.gz")


def is_bids(cohort: Cohort) -> bool:
    """Whether the cohort was read from a BIDS data set."""
    return cohort.origin.get("layout") == "bids"


def describe_bids(cohort: Cohort, out: Path, what: str) -> None:
    """`dataset_description.json` of a BIDS derivative that holds `what`, unless there is one."""
    path = out / "dataset_description.json"
    if path.exists():
        return
    told = {
        "Name": f"{what} for {cohort.name}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medprism", "Version": medprism.__version__}],
        "DatasetLinks": {"raw": Path(relpath(cohort.root, out.resolve())).as_posix()},
    }
    with whole_file(path) as file:
        file.write((json.dumps(told, indent=2) + "\n").encode())


State = Literal["absent", "stopped", "done", "other"]


def state(path: Path, facts: Mapping[str, Any], beside: Iterable[Path] = ()) -> State:
    """What is at an output's place.

    Args:
        path: the output: a NIfTI file with a sidecar, or a JSON file that says all itself.
        facts: what must be said of it for it to be what would be made now.
        beside: files that must be there too.

    Returns:
        `absent`: nothing. `stopped`: what a stopped run left, to be written again. `done`: just what is wanted.
        `other`: anything else.
    """
    sidecar = path if path.suffix == ".json" else sidecar_path(path)
    told, others = _read(sidecar), list(beside)
    if not path.exists():
        in_the_way = sidecar.exists() or any(other.exists() for other in others)
        return "stopped" if _ours(told) else ("other" if in_the_way else "absent")
    same = all(told.get(key) == value for key, value in facts.items())
    return "done" if same and all(other.exists() for other in others) else "other"


def _ours(told: Mapping[str, Any]) -> bool:
    """Whether a sidecar is one of this package's."""
    by = told.get("GeneratedBy")
    return isinstance(by, dict) and by.get("Name") == "medprism"


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def refuse_beside(jobs: Iterable[Job], raw: Iterable[Path]) -> None:
    """Stop before an output lands among real scans and labels, where any reader would take it for one of them."""
    folders = {without_volume(path).resolve().parent for path in raw}
    for job in jobs:
        for output in job.outputs.values():
            if output.resolve().parent in folders:
                raise UserError(
                    f"expected a folder without real scans, got {output.parent}; choose another --out, "
                    "so that what a model made is never taken for real"
                )


def refuse_inputs(job: Job, files: Iterable[Path]) -> None:
    """Stop before a file is written in the place of a scan that it is made from, whatever --force says."""
    inputs = {without_volume(path).resolve() for path in job.images.values()}
    for file in files:
        if file.resolve() in inputs:
            raise UserError(
                f"expected outputs beside the scans, got {file}, which is one of them; choose another --out"
            )
