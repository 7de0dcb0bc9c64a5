"""The verb `phantom`: a cohort made from physics, with the truth known."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medprism.errors import UserError
from medprism.phantoms.body_cohort import write_body_cohort
from medprism.phantoms.cohort import write_brain_cohort
from medprism.phantoms.tumour import LOW_GRADE

# Voxel side in mm: as of fast experiments on MRI, and as of PET.
SPACING = {"brain": 3.0, "body": 4.5}


def phantom(
    anatomy: Literal["brain", "body"],
    *,
    out: Path,
    subjects: int = 32,
    spacing: float | None = None,
    domain: Literal["torso", "head-neck"] | None = None,
    scanner: Literal["A", "B", "both"] = "A",
    missing_rate: float = 0.0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    low_grade: float | None = None,
    seed: int = 0,
    workers: int = 0,
    force: bool = False,
) -> Path:
    """Make a cohort of phantoms.

    `brain`: T1, T1 with contrast agent, T2 and FLAIR of brains with tumours, and the tumours' parts as labels.
    `body`: CT, FDG-PET, and PET without attenuation correction, of persons half of whom have lesions, and these as
    label.

    Args:
        anatomy: what of the body.
        out: folder for the scans and their cohort.json.
        subjects: number of persons.
        spacing: voxel side in mm; by default 3 for brains and 4.5 for bodies.
        domain: field of view of `body`, torso by default: neck to hips, or vertex to upper chest. `brain` takes none.
        scanner: preset; A and B differ in noise and sharpness, and in sequences or counts, as two hospitals do;
            `both` images half of the persons with each.
        missing_rate: part of the training subjects' scans to leave out at random.
        fractions: parts of the persons for training, validation and test.
        low_grade: share of the tumours of `brain` that do not enhance, 0.15 by default; 0.5 makes two classes of
            about the same size. `body` takes none.
        seed: of everything; the same seed gives the same bytes.
        workers: processes; 0 works in this one.
        force: replace a phantom cohort that is there.

    Returns:
        The path of cohort.json.

    Raises:
        UserError: a value out of range, the folder is in use, or the disk is full.
    """
    if anatomy == "brain" and domain is not None:
        raise UserError(f"expected --domain with phantom body only, got {domain} with phantom brain; leave it out")
    if anatomy == "body" and low_grade is not None:
        raise UserError(
            f"expected --low-grade with phantom brain only, got {low_grade} with phantom body; leave it out"
        )
    side = SPACING[anatomy] if spacing is None else spacing
    if anatomy == "body":
        return write_body_cohort(
            out,
            subjects=subjects,
            spacing=side,
            domain=domain or "torso",
            scanner=scanner,
            missing_rate=missing_rate,
            fractions=fractions,
            seed=seed,
            workers=workers,
            force=force,
        )
    return write_brain_cohort(
        out,
        subjects=subjects,
        spacing=side,
        scanner=scanner,
        missing_rate=missing_rate,
        fractions=fractions,
        low_grade=LOW_GRADE if low_grade is None else low_grade,
        seed=seed,
        workers=workers,
        force=force,
    )
