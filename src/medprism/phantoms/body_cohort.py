"""A cohort of phantom bodies on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from medprism.phantoms.body import LABELS, REGIONS, body_subject, check_domain
from medprism.phantoms.cohort import Phantom, Recipe, write_cohort
from medprism.phantoms.petct import petct_preset


@dataclass(frozen=True)
class Bodies(Recipe):
    """What decides the bytes of a cohort of bodies."""

    kind: ClassVar[str] = "body"
    modalities: ClassVar[tuple[str, ...]] = ("ct", "pet", "nac")
    space: ClassVar[str] = "scanner"
    labels: ClassVar[dict[str, int]] = LABELS
    regions: ClassVar[dict[str, list[int]]] = REGIONS
    classes: ClassVar[dict[str, int]] = {"no lesion": 0, "lesion": 1}

    domain: str = "torso"

    @property
    def name(self) -> str:
        """Name of the cohort."""
        return f"phantom-{self.domain}-{self.scanner}"

    def person(self, index: int) -> str:
        """Who a subject is; each domain has persons of its own."""
        return f"{self.domain}-{self.seed}-{index + 1:04d}"

    def check(self) -> None:
        """Raise UserError on a value that makes no cohort."""
        petct_preset(self.scanner_of(0))
        check_domain(self.domain)
        super().check()

    def make(self, index: int) -> Phantom:
        """One subject."""
        body = body_subject(self.seed, index, self.spacing, self.domain, self.scanner_of(index))
        return Phantom(body.images, body.label, body.affine, int(body.label.any()), body.truth)


def write_body_cohort(
    out: str | os.PathLike[str],
    *,
    subjects: int,
    spacing: float = 4.5,
    domain: str = "torso",
    scanner: str = "A",
    missing_rate: float = 0.0,
    seed: int = 0,
    workers: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    force: bool = False,
) -> Path:
    """Write phantom bodies (CT in HU, FDG-PET in SUV, PET without attenuation correction, label) and their cohort file.

    Half of the persons have lesions. An interrupted call goes on where it stopped when it is repeated with the same
    arguments. The bytes depend on neither the number of workers nor on interruptions.

    Args:
        out: Folder to make.
        subjects: Number of persons.
        spacing: Voxel side, mm; all scans of a person share one grid.
        domain: "torso" (neck to hips) or "head-neck" (vertex to upper chest).
        scanner: Preset "A" or "B", or "both" for half of the persons each, as of two hospitals.
        missing_rate: Part of the training subjects' scans to leave out at random, never a person's last one;
            validation and test subjects keep all of theirs.
        seed: Persons of the same seed and domain are the same with any spacing and scanner.
        workers: Processes; 0 works in this one.
        fractions: Parts of the persons for training, validation and test.
        force: Replace a phantom cohort that is already there.

    Returns:
        Path of `cohort.json`.

    Raises:
        UserError: A value out of range, `out` already holds something, or the disk is full.
    """
    first, second, third = fractions
    parts = (first, second, third)
    recipe = Bodies(subjects, float(spacing), scanner, float(missing_rate), seed, parts, domain=domain)
    return write_cohort(out, recipe, workers, force=force)
