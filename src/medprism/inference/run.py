"""Doing jobs subject by subject, here or on workers: what is done is kept, what is in the way stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from medprism.errors import UserError
from medprism.inference.jobs import Job, refuse_inputs, state
from medprism.inference.progress import bar, finished
from medprism.inference.workers import Workers
from medprism.io.container import open_nifti, split_volume


class Output(Protocol):
    """What a model makes: a dataclass that can be saved."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def sidecar(self) -> Mapping[str, Any]:
        """What is known about it."""

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write it and its sidecar."""


# Model, job, names of the outputs to make, a function that is told the part done -> outputs by name.
Make = Callable[[Any, Job, Sequence[str], Callable[[float], None]], Mapping[str, Output]]


@dataclass(frozen=True)
class Work:
    """What a verb does with each job.

    Attributes:
        doing: the verb, before the progress bar.
        outputs: what the outputs are, after it.
        make: makes a job's outputs; importable by name, or a `partial` of such a function.
        facts: job -> what the sidecars of its outputs say if they are what would be made now, beside the sources.
        beside: output -> the files that come with it.
    """

    doing: str
    outputs: str
    make: Make
    facts: Callable[[Job], Mapping[str, Any]]
    beside: Callable[[Path], Iterable[Path]] = lambda path: ()


def run(
    work: Work,
    model: Any,  # noqa: ANN401 - that of the verb
    jobs: Sequence[Job],
    *,
    keep: bool,
    force: bool,
    workers: Workers | None = None,
    tell: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Do the jobs; one that cannot be used does not stop the others.

    Args:
        work: what to do.
        model: with what.
        jobs: for whom.
        keep: outputs that are just what would be made are left as they are, else they stand in the way.
        force: overwrite whatever is there.
        workers: do it there, in any order; the files are the same.
        tell: prints what is to be expected; called when nothing is in the way and a patient's files are there.

    Returns:
        All outputs, also those that were there before.

    Raises:
        UserError: an output stands in the way (then nothing was done), or subjects could not be used (then all others
            are done).
    """
    todo = [(job, left) for job in jobs if (left := _left(work, job, keep=keep, force=force))]
    for job, _ in todo:
        _require_files(job)
    tell()
    failures = {}
    with bar(work.doing, len(todo)) as progress:
        done: Iterator[Done]
        if workers is None:
            done = (_do(work.make, model, one, progress.within) for one in todo)
        else:
            done = _there(work.make, todo, workers)
        for subject, reason in done:
            if reason is not None:
                failures[subject] = reason
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


def _require_files(job: Job) -> None:
    """Stop if a patient's file is missing; of a cohort, such a subject is told of in the end."""
    for path in job.images.values() if job.subject is None else ():
        file, _ = split_volume(path)
        if not file.exists():
            open_nifti(file)  # says so


Todo = tuple[Job, dict[str, bool]]
"""A job and its outputs still to be made -> whether something is there that may be overwritten."""

Done = tuple[str | None, str | None]
"""The subject, and why its scans could not be used."""


def _do(make: Make, model: Any, todo: Todo, progress: Callable[[float], None]) -> Done:  # noqa: ANN401
    """Make and save what is left of a job."""
    job, left = todo
    try:
        results = make(model, job, list(left), progress)
    except UserError as error:
        if job.subject is None:
            raise
        return job.subject, str(error)
    for name, result in results.items():
        told = {**result.sidecar, "Sources": list(job.sources)}
        replace(result, sidecar=told).save(job.outputs[name], force=left[name])
    return job.subject, None


def _there(make: Make, todo: Sequence[Todo], workers: Workers) -> Iterator[Done]:
    """On workers, which have folders of their own to start from, and may have died after they wrote."""
    items = [(_absolute(job), dict.fromkeys(left, True)) for job, left in todo]
    for done in workers.each(partial(_do_on_worker, make), items):
        if isinstance(done, UserError):
            raise done
        yield done


def _do_on_worker(make: Make, model: Any, todo: Todo) -> Done:  # noqa: ANN401
    return _do(make, model, todo, lambda part: None)


def _absolute(job: Job) -> Job:
    images, outputs = ({name: path.absolute() for name, path in own.items()} for own in (job.images, job.outputs))
    return replace(job, images=images, outputs=outputs)


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
