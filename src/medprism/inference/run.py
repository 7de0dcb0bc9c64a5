"""Doing the jobs of `synthesize`, one subject after the other: what is done is kept, what is in the way stops it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medprism.errors import UserError
from medprism.inference.jobs import Job, state
from medprism.inference.model import Model
from medprism.inference.result import Intensity
from medprism.inference.tables import bar, finished


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
