"""Preparing one subject: from its files to its entry, unless a sound entry of the same content is there."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medprism.data.cache import VERSION, digest_of
from medprism.data.cohort import Cohort
from medprism.data.entry import Entry, write_entry
from medprism.data.recipe import Recipe
from medprism.data.subject import Subject
from medprism.data.volume import Volume, assemble, label_on
from medprism.errors import UserError
from medprism.io.container import split_volume
from medprism.io.nifti import read_label, read_scan


@dataclass(frozen=True)
class Job:
    """What one worker needs to prepare one subject.

    Attributes:
        cohort: The cohort with this subject only.
        recipe: How to prepare.
        entries: Absolute folder of the entries.
    """

    cohort: Cohort
    recipe: Recipe
    entries: Path


@dataclass(frozen=True)
class Built:
    """What became of a subject.

    Attributes:
        subject: Its name.
        folder: Name of its folder in `entries`.
        digest: See `digest_of`.
        fresh: Whether it was made now, not found.
    """

    subject: str
    folder: str
    digest: str
    fresh: bool


def build(job: Job) -> Built:
    """Prepare one subject, unless a sound entry made of the same content by the same recipe is there.

    Raises:
        UserError: A file is missing or unreadable, the scans do not fit together, a label has undeclared values, or
            nothing can be written; the message names the subject.
    """
    (subject,) = job.cohort.subjects()
    try:
        name = f"{re.sub(r'[^A-Za-z0-9_-]+', '_', subject.subject)[:60]}-{_key(job, subject)[:16]}"
        folder = job.entries / name
        fresh = not _sound(folder, job.recipe, subject)
        if fresh:
            volume = assemble({m: read_scan(job.cohort.path(p)) for m, p in subject.images.items()}, job.recipe)
            _write(folder, volume, _label(job, subject, volume))
    except UserError as error:
        message = str(error)
        named = message.startswith(f"{subject.subject}: ")
        raise UserError(message if named else f"{subject.subject}: {message}") from error
    return Built(subject.subject, name, digest_of(folder), fresh)


def _label_path(job: Job, subject: Subject) -> str | None:
    """The label that is used: that on the grid of the reference scan, where each grid has its own."""
    return subject.label_for(job.recipe.reference_of(list(subject.images)))


def _label(job: Job, subject: Subject, volume: Volume) -> NDArray[Any] | None:
    path = _label_path(job, subject)
    if path is None:
        return None
    scan = read_label(job.cohort.path(path))
    return label_on(volume.grid, replace(scan, array=job.cohort.relabel(scan.array, subject.subject)))


def _key(job: Job, subject: Subject) -> str:
    """What an entry is made of, as one hash: content of the files, what is done with it, and by which version."""
    label = _label_path(job, subject)
    files = {**subject.images, **({} if label is None else {"label": label})}
    parts = {
        "version": VERSION,
        "subject": subject.subject,
        "recipe": job.recipe.to_dict(),
        "labels": [sorted(job.cohort.labels.values()), sorted(job.cohort.label_map.items())],
        "files": {kind: _content(job.cohort.path(path)) for kind, path in files.items()},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> tuple[str, int | None]:
    """SHA-256 of a file, and which volume of it. Of its content, as size and time miss a file copied over another."""
    file, volume = split_volume(path)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest(), volume
    except OSError as error:
        raise UserError(f"expected to read {file}, got {error.strerror or error} from the system") from error


def _sound(folder: Path, recipe: Recipe, subject: Subject) -> bool:
    """Whether there is an entry, undamaged down to the last bit."""
    try:
        Entry.load(folder, recipe.modalities, subject=subject.subject, person=subject.person).verify()
    except UserError:
        return False
    return True


def _write(folder: Path, volume: Volume, label: NDArray[np.uint8] | NDArray[np.uint16] | None) -> None:
    try:
        write_entry(folder, volume, label)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space" if full else "check the folder and its rights"
        raise UserError(
            f"expected to write {folder}, got {error.strerror or error} from the system; "
            f"{advice} and run again, finished subjects are kept"
        ) from error
