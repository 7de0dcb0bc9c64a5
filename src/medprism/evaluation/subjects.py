"""Who was there: the grid of subjects and scans, and the representation of every scan that was scored."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medprism.data.cohort import SPLITS
from medprism.io.atomic import whole_file

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

SUBJECTS, REPRESENTATION = "subjects.csv", "representation.npz"


def write_subjects(cache: Cache, folder: Path) -> Path:
    """Write subjects.csv: split, subject, person, site and one column of 0 or 1 per modality, for all splits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "subject", "person", "site", *cache.modalities])
    for split in SPLITS:
        for entry in cache.subjects(split):
            writer.writerow([split, entry.subject, entry.person, entry.site or "", *map(int, entry.present)])
    path = folder / SUBJECTS
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
    return path


class Representation:
    """The pooled representation of each scan, gathered subject by subject."""

    def __init__(self) -> None:
        self.vectors: list[NDArray[np.float32]] = []
        self.labels: list[tuple[str, str, str]] = []

    def add(self, entry: Entry, vectors: NDArray[np.float32], modalities: Sequence[str]) -> None:
        """Add the present rows of one subject's (M, C) vectors."""
        for name, present, vector in zip(modalities, entry.present, vectors, strict=True):
            if present:
                self.vectors.append(np.asarray(vector, dtype=np.float32))
                self.labels.append((entry.subject, entry.person, name))

    def write(self, folder: Path) -> Path | None:
        """Write representation.npz: `vectors` (N, C) float32, `subject`, `person` and `modality` (N,) strings.

        Returns:
            The path, or None where nothing was added.
        """
        if not self.vectors:
            return None
        subject, person, modality = (np.array(column, dtype=str) for column in zip(*self.labels, strict=True))
        path = folder / REPRESENTATION
        with whole_file(path) as file:
            np.savez_compressed(file, vectors=np.stack(self.vectors), subject=subject, person=person, modality=modality)
        return path
