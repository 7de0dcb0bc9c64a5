"""The verb `phantom`: a cohort made from physics, with the truth known."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medprism.phantoms.cohort import write_brain_cohort


def phantom(
    anatomy: Literal["brain"],
    *,
    out: Path,
    subjects: int = 32,
    spacing: float = 3.0,
    scanner: Literal["A", "B"] = "A",
    missing_rate: float = 0.0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    workers: int = 0,
    force: bool = False,
) -> Path:
    """Make a cohort of phantoms: T1, T1 with contrast agent, T2 and FLAIR of brains with tumours, and the labels.

    Args:
        anatomy: what of the body; `brain`.
        out: folder for the scans and their cohort.json.
        subjects: number of persons.
        spacing: voxel side in mm.
        scanner: preset; A and B differ in sequences, field and noise, as two hospitals do.
        missing_rate: part of the training subjects' scans to leave out at random.
        fractions: parts of the persons for training, validation and test.
        seed: of everything; the same seed gives the same bytes.
        workers: processes; 0 works in this one.
        force: replace a phantom cohort that is there.

    Returns:
        The path of cohort.json.

    Raises:
        UserError: a value out of range, the folder is in use, or the disk is full.
    """
    del anatomy  # one so far
    return write_brain_cohort(
        out,
        subjects=subjects,
        spacing=spacing,
        scanner=scanner,
        missing_rate=missing_rate,
        fractions=fractions,
        seed=seed,
        workers=workers,
        force=force,
    )
