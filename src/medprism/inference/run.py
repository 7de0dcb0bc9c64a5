"""Doing jobs one subject after the other: what is done is kept, what is in the way stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from medprism.errors import UserError
from medprism.inference.jobs import Job, refuse_inputs, state
from medprism.inference.progress import bar, finished


class Output(Protocol):
    """What a model makes: a dataclass that can be saved."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def sidecar(self) -> Mapping[str, Any]:
        """What is known about it."""

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write it and its sidecar."""


# A job, the names of the outputs to make, a function that is told the part done -> outputs by name.
Make = Callable[[Job, Sequence[str], Callable[[float], None]], Mapping[str, Output]]


@dataclass(frozen=True)
class Work:
    """What a verb does with each job.

    Attributes:
        doing: the verb, before the progress bar.
        outputs: what the outputs are, after it.
        make: makes a job's outputs.
        facts: job -> what the sidecars of its outputs say if they are what would be made now, beside the sources.
        beside: output -> the files that come with it.
    """

    doing: str
    outputs: str
    make: Make
    facts: Callable[[Job], Mapping[str, Any]]
    beside: Callable[[Path], Iterable[Path]] = lambda path: ()


def run(work: Work, jobs: Sequence[Job], *, keep: bool, force: bool) -> list[Path]:
    """Do the jobs, one subject after the other; one that cannot be used does not stop the others.

    Args:
        work: what to do.
        jobs: for whom.
        keep: outputs that are just what would be made are left as they are, else they stand in the way.
        force: overwrite whatever is there.

    Returns:
        All outputs, also those that were there before.

    Raises:
        UserError: an output stands in the way (then nothing was done), or subjects could not be used (then all others
            are done).
    """
    todo = [(job, left) for job in jobs if (left := _left(work, job, keep=keep, force=force))]
    failures = {}
    with bar(work.doing, len(todo)) as progress:
        for job, left in todo:
            try:
                results = work.make(job, list(left), progress.within)
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
    finished(work.outputs, outputs, len(jobs) - len(todo))
    if failures:
        shown = "; ".join(f"{subject}: {reason}" for subject, reason in list(failures.items())[:3])
        raise UserError(
            f"expected usable scans of all subjects, got {len(failures)} without ({shown}); "
            "mend them and give the same command: what is done is kept"
        )
    return outputs


def _left(work: Work, job: Job, *, keep: bool, force: bool) -> dict[str, bool]:
    """Outputs of a job still to be made -> whether something is there that may be overwritten.

    Raises:
        UserError: something is there that may not.
    """
    facts = {**work.facts(job), "SourceModalities": list(job.images), "Sources": list(job.sources)}
    left = {}
    for name, path in job.outputs.items():
        refuse_inputs(job, [path, *work.beside(path)])
        found = state(path, facts, work.beside(path))
        if found == "done" and keep and not force:
            continue
        if found in ("done", "other") and not force:
            raise UserError(f"expected no file as {path}, but there is one; choose another --out or --force")
        left[name] = force or found == "stopped"
    return left
