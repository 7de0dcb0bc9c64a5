"""The verb `synthesize`: the scans that a patient does not have, from those that there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.inference.jobs import Job
    from medprism.inference.model import Model

Intensity = Literal["like-train", "unit"]


def synthesize(
    model: Path,
    *,
    out: Path,
    image: dict[str, Path] | None = None,
    data: Path | None = None,
    target: str = "all",
    uncertainty: bool = False,
    intensity: Literal["like-train", "unit"] = "like-train",
    device: str = "auto",
    precision: Literal["32", "bf16"] = "32",
    force: bool = False,
) -> list[Path]:
    """Generate the scans that a patient, or each subject of a cohort, does not have.

    Args:
        model: model folder, or the folder of the run that made it.
        out: folder for the synthetic scans, each with a JSON sidecar; not one that holds real scans.
        image: one patient's scans by modality, as in `--image.t1n a.nii.gz --image.t2w b.nii.gz`.
        data: cohort.json instead: every subject of it; what a stopped run has done is kept.
        target: the modality to generate, or `all` that are absent.
        uncertainty: also write a map of the standard deviation over single sources and rotations; takes 5 to 10 times
            as long.
        intensity: `like-train`: as the typical scan in training (CT in HU, PET in SUV); `unit`: 0 to 1.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent GPUs and a little less exact.
        force: overwrite.

    Returns:
        The synthetic scans, those that were there before included.

    Raises:
        UserError: model, scans, names or folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cohort import Cohort
    from medprism.inference import jobs, tables
    from medprism.inference.model import Model

    if bool(image) == (data is not None):
        raise UserError("expected either scans (--image.t1n FILE …) or a cohort (--data cohort.json); give one of them")
    out = Path(out)
    loaded = Model.load(model, device, precision=precision)
    knows, makes = loaded.modalities, loaded.makes
    if image:
        job = jobs.job_of_files(image, target, out, knows, makes)
        tables.one_subject(loaded, job)
        return run(loaded, [job], uncertainty=uncertainty, intensity=intensity, keep=False, force=force)
    cohort = Cohort.load(Path(str(data)))
    todo = jobs.jobs_of_cohort(cohort, target, out, knows, makes)
    tables.whole_cohort(loaded, cohort, todo)
    if todo and jobs.is_bids(cohort):
        jobs.describe_bids(cohort, out)
    return run(loaded, todo, uncertainty=uncertainty, intensity=intensity, keep=True, force=force)


def run(
    model: Model, jobs: list[Job], *, uncertainty: bool, intensity: Intensity, keep: bool, force: bool
) -> list[Path]:
    """Do the jobs, one subject after the other; one that cannot be used does not stop the others.

    Args:
        model: the model.
        jobs: what to do.
        uncertainty: as in `synthesize`.
        intensity: as in `synthesize`.
        keep: outputs that are just what would be made are left as they are, else they stand in the way.
        force: overwrite whatever is there.

    Returns:
        All outputs.

    Raises:
        UserError: an output stands in the way (then nothing was done), or subjects could not be used (then all others
            are done).
    """
    from dataclasses import replace

    from medprism.inference.tables import bar, finished

    wanted = {"ModelSHA256": model.card.get("sha256"), "Intensity": intensity}
    todo = [(job, _left(job, wanted, uncertainty=uncertainty, keep=keep, force=force)) for job in jobs]
    todo = [(job, left) for job, left in todo if left]
    failures = {}
    with bar(len(todo)) as progress:
        for job, left in todo:
            try:
                results = model.synthesize(
                    job.images, list(left), uncertainty=uncertainty, intensity=intensity, progress=progress.within
                )
            except UserError as error:
                if job.subject is None:
                    raise
                failures[job.subject] = str(error)
                results = {}
            for name, result in results.items():
                told = {**result.sidecar, "Sources": list(job.sources)}
                replace(result, sidecar=told).save(job.outputs[name], force=left[name])
            progress.next()
    outputs = [path for job in jobs if job.subject not in failures for path in job.outputs.values()]
    finished(outputs, len(jobs) - len(todo))
    if failures:
        shown = "; ".join(f"{subject}: {reason}" for subject, reason in list(failures.items())[:3])
        raise UserError(
            f"expected usable scans of all subjects, got {len(failures)} without ({shown}); "
            "mend them and give the same command: what is done is kept"
        )
    return outputs


def _left(job: Job, wanted: dict[str, str | None], *, uncertainty: bool, keep: bool, force: bool) -> dict[str, bool]:
    """Modalities of a job still to be made -> whether something is there that may be overwritten.

    Raises:
        UserError: something is there that may not.
    """
    from medprism.inference.jobs import state

    facts = {**wanted, "SourceModalities": list(job.images), "Sources": list(job.sources)}
    left = {}
    for name, path in job.outputs.items():
        found = state(path, facts, uncertainty=uncertainty)
        if found == "done" and keep and not force:
            continue
        if found in ("done", "other") and not force:
            raise UserError(f"expected no file as {path}, but there is one; choose another --out or --force")
        left[name] = force or found == "stopped"
    return left
