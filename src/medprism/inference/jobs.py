"""What is to be made from which files and where it goes: one job a subject, whose outputs say whether it is done."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

import medprism
from medprism.data.cohort import Cohort
from medprism.data.subject import without_volume
from medprism.errors import UserError
from medprism.inference.inputs import by_name, choose_targets
from medprism.inference.result import uncertainty_path
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
        outputs: modality -> file, the scans to make.
        sources: how the sidecars name the given files, in the order of `images`.
    """

    subject: str | None
    images: Mapping[str, Path]
    outputs: Mapping[str, Path]
    sources: Sequence[str]


def job_of_files(
    image: Mapping[str, Path], target: str, out: Path, modalities: Sequence[str], makes: Sequence[str]
) -> Job:
    """The job of files given by hand; outputs are `out/<modality>.nii.gz`.

    Args:
        image: modality (any alias) -> file.
        target: as for `Model.synthesize`.
        out: folder.
        modalities: what the model knows.
        makes: what the model makes.

    Raises:
        UserError: names that the model does not know, or an output beside an input.
    """
    images = {name: Path(path) for name, path in by_name(image, modalities).items()}
    outputs = {name: out / f"{name}.nii.gz" for name in choose_targets(target, images, makes)}
    job = Job(None, images, outputs, [path.name for path in images.values()])
    _refuse_beside([job], images.values())
    return job


def jobs_of_cohort(
    cohort: Cohort, target: str, out: Path, modalities: Sequence[str], makes: Sequence[str]
) -> list[Job]:
    """A job for each subject that lacks something and has a scan that the model knows.

    Outputs are `out/<subject>/<modality>.nii.gz`, or as BIDS has it.

    Args:
        cohort: whose subjects, all splits.
        target: as for `Model.synthesize`; a subject that has it needs no job.
        out: folder.
        modalities: what the model knows.
        makes: what the model makes.

    Raises:
        UserError: no such target, no subject with a scan that the model knows, or an output among real scans.
    """
    if not set(modalities) & {name for subject in cohort.subjects() for name in subject.images}:
        raise UserError(f"expected scans of {', '.join(modalities)}, which the model knows, got none in {cohort.name}")
    wanted = makes if target == "all" else choose_targets(target, (), makes)
    place = _bids_place if is_bids(cohort) else _flat_place
    raw = [cohort.path(relative) for subject in cohort.subjects() for relative in subject.images.values()]
    jobs = []
    for subject in cohort.subjects():
        relatives = {name: subject.images[name] for name in modalities if name in subject.images}
        if not relatives:
            continue
        if absent := [name for name in wanted if name not in relatives]:
            sources = [("bids:raw:" if is_bids(cohort) else "") + relative for relative in relatives.values()]
            outputs = {name: out / place(subject.subject, next(iter(relatives.values())), name) for name in absent}
            jobs.append(Job(subject.subject, {n: cohort.path(r) for n, r in relatives.items()}, outputs, sources))
    _refuse_beside(jobs, raw)
    return jobs


def is_bids(cohort: Cohort) -> bool:
    """Whether the cohort was read from a BIDS data set."""
    return cohort.origin.get("layout") == "bids"


def describe_bids(cohort: Cohort, out: Path) -> None:
    """`dataset_description.json` of a BIDS derivative, unless there is one."""
    path = out / "dataset_description.json"
    if path.exists():
        return
    told = {
        "Name": f"Synthetic scans for {cohort.name}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medprism", "Version": medprism.__version__}],
        "DatasetLinks": {"raw": Path(relpath(cohort.root, out.resolve())).as_posix()},
    }
    with whole_file(path) as file:
        file.write((json.dumps(told, indent=2) + "\n").encode())


State = Literal["absent", "stopped", "done", "other"]


def state(path: Path, facts: Mapping[str, Any], *, uncertainty: bool) -> State:
    """What is at an output's place.

    Args:
        path: the output.
        facts: what its sidecar must say for it to be what would be made now.
        uncertainty: whether a map must be there too.

    Returns:
        `absent`: nothing. `stopped`: what a stopped run left, to be written again. `done`: just what is wanted.
        `other`: anything else.
    """
    beside = sidecar_path(path)
    told = _read(beside)
    if not path.exists():
        ours = told.get("Synthetic") is True
        return "stopped" if ours else ("other" if beside.exists() else "absent")
    same = all(told.get(key) == value for key, value in facts.items())
    return "done" if same and (not uncertainty or uncertainty_path(path).exists()) else "other"


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _refuse_beside(jobs: Iterable[Job], raw: Iterable[Path]) -> None:
    """Stop before a synthetic scan lands among real ones, where any reader would take it for one of them."""
    folders = {without_volume(path).resolve().parent for path in raw}
    for job in jobs:
        for output in job.outputs.values():
            if output.resolve().parent in folders:
                raise UserError(
                    f"expected a folder without real scans, got {output.parent}; choose another --out, "
                    "so that a synthetic scan is never taken for a real one"
                )


def _flat_place(subject: str, source: str, modality: str) -> Path:
    return Path(subject, f"{modality}.nii.gz")


def _bids_place(subject: str, source: str, modality: str) -> Path:
    """`sub-1/ses-2/anat/sub-1_ses-2_desc-synthetic_FLAIR.nii.gz`, participant and session as in the source's name."""
    name = Path(source).name
    visit = [found[0] for key in ("sub", "ses") if (found := re.search(rf"{key}-[A-Za-z0-9]+", name))]
    folder, entities, suffix = _BIDS[modality]
    return Path(*visit, folder, f"{'_'.join(visit)}{entities}_desc-synthetic_{suffix}.nii.gz")
