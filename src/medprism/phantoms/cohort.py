"""A cohort of phantoms on disk: what brains and bodies share, and that of brains."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medprism import __version__
from medprism.errors import UserError
from medprism.io.atomic import whole_file
from medprism.io.grid import Grid
from medprism.io.nifti import Scan, new_scan, save_like
from medprism.phantoms.box import Array
from medprism.phantoms.brain import LABELS, REGIONS, brain_subject
from medprism.phantoms.scanner import scanner_preset
from medprism.phantoms.tumour import LOW_GRADE

log = logging.getLogger(__name__)

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
_SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Phantom:
    """What is written of one subject.

    Attributes:
        images: (X, Y, Z) float32 by modality.
        label: (X, Y, Z) uint8.
        affine: (4, 4) voxel → world mm.
        class_label: Class of the subject.
        truth: Parameters that made it.
    """

    images: Mapping[str, Array]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    class_label: int
    truth: Mapping[str, object]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a cohort; a kind of phantom adds what it is and how one is made."""

    kind: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    space: ClassVar[str]  # name of the world space for the NIfTI header
    labels: ClassVar[dict[str, int]]
    regions: ClassVar[dict[str, list[int]]]
    classes: ClassVar[dict[str, int]]

    subjects: int
    spacing: float
    scanner: str
    missing_rate: float
    seed: int
    fractions: tuple[float, float, float]
    version: str = __version__

    @property
    def name(self) -> str:
        """Name of the cohort."""
        return f"phantom-{self.kind}-{self.scanner}"

    def scanner_of(self, index: int) -> str:
        """Preset that images a subject; of "both" each two neighbours, of whom one body has lesions, share one."""
        return "AB"[index // 2 % 2] if self.scanner == "both" else self.scanner

    def make(self, index: int) -> Phantom:
        """One subject."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise UserError on a value that makes no cohort."""
        if self.subjects < 1:
            raise UserError(f"expected at least 1 subject, got {self.subjects}; raise --subjects")
        if not 0.5 <= self.spacing <= 10:
            raise UserError(f"expected a spacing of 0.5 to 10 mm, got {self.spacing}; 1 to 5 is usual")
        if not 0 <= self.missing_rate < 1:
            raise UserError(f"expected a missing rate in [0, 1), got {self.missing_rate}; 0.3 drops 30 % of the scans")
        if self.seed < 0:
            raise UserError(f"expected a seed of 0 or more, got {self.seed}; choose another")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise UserError(
                f"expected fractions for training, validation and test that add up to 1, got {self.fractions}; mend"
            )

    def person(self, index: int) -> str:
        """Who a subject is: the same in every cohort that shows this person, and nobody of another seed."""
        return f"{self.kind}-{self.seed}-{index + 1:04d}"

    def names(self) -> list[str]:
        """Of the subjects."""
        return [f"sub-{index + 1:04d}" for index in range(self.subjects)]

    def splits(self) -> dict[str, list[int]]:
        """Sorted indices of the subjects of each split; no wanted split is empty if there are subjects enough."""
        order = np.random.default_rng([self.seed, *b"split"]).permutation(self.subjects)
        ends = np.rint(np.cumsum(self.fractions) * self.subjects).astype(int)
        counts = np.diff(ends, prepend=0)
        wanted = [i for i, fraction in enumerate(self.fractions) if fraction > 0]
        if self.subjects >= len(wanted):
            for i in wanted:
                if counts[i] == 0:
                    counts[int(counts.argmax())] -= 1
                    counts[i] = 1
        parts = np.split(order, np.cumsum(counts)[:-1])
        return {name: sorted(int(i) for i in part) for name, part in zip(_SPLITS, parts, strict=True)}

    def present(self, index: int, splits: dict[str, list[int]] | None = None) -> tuple[str, ...]:
        """Modalities of a subject. Only training subjects lose scans: evaluation needs the truth."""
        if index not in (splits or self.splits())["training"]:
            return self.modalities
        rng = np.random.default_rng([self.seed, index, *b"missing"])
        kept = rng.random(len(self.modalities)) >= self.missing_rate
        kept[rng.integers(len(self.modalities))] |= not kept.any()
        return tuple(name for name, keep in zip(self.modalities, kept, strict=True) if keep)


@dataclass(frozen=True)
class _Brains(Recipe):
    kind: ClassVar[str] = "brain"
    modalities: ClassVar[tuple[str, ...]] = MODALITIES
    space: ClassVar[str] = "mni"
    labels: ClassVar[dict[str, int]] = LABELS
    regions: ClassVar[dict[str, list[int]]] = REGIONS
    classes: ClassVar[dict[str, int]] = {"no enhancing tumour": 0, "enhancing tumour": 1}

    low_grade: float = LOW_GRADE

    def check(self) -> None:
        scanner_preset(self.scanner_of(0))
        if not 0 <= self.low_grade <= 1:
            raise UserError(f"expected a share from 0 to 1 of low grade, got {self.low_grade}; 0.5 makes classes even")
        super().check()

    def make(self, index: int) -> Phantom:
        brain = brain_subject(self.seed, index, self.spacing, self.scanner_of(index), self.low_grade)
        enhances = int((brain.label == LABELS["ET"]).any())
        return Phantom(brain.images, brain.label, brain.affine, enhances, brain.truth)


def write_brain_cohort(
    out: str | os.PathLike[str],
    *,
    subjects: int,
    spacing: float = 3.0,
    scanner: str = "A",
    missing_rate: float = 0.0,
    seed: int = 0,
    workers: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    low_grade: float = LOW_GRADE,
    force: bool = False,
) -> Path:
    """Write phantom brains with a tumour (T1, T1 with contrast agent, T2, FLAIR, label) and their cohort file.

    An interrupted call goes on where it stopped when it is repeated with the same arguments. The bytes depend on
    neither the number of workers nor on interruptions.

    Args:
        out: Folder to make.
        subjects: Number of persons.
        spacing: Voxel side, mm.
        scanner: Preset "A" or "B", or "both" for half of the persons each, as of two hospitals.
        missing_rate: Part of the training subjects' scans to leave out at random, never a person's last one;
            validation and test subjects keep all of theirs.
        seed: Persons of the same seed and number are the same with any spacing and scanner.
        workers: Processes; 0 works in this one.
        fractions: Parts of the persons for training, validation and test.
        low_grade: Share of the tumours that do not enhance. Nothing else of a person depends on it.
        force: Replace a phantom cohort that is already there.

    Returns:
        Path of `cohort.json`.

    Raises:
        UserError: A value out of range, `out` already holds something, or the disk is full.
    """
    first, second, third = fractions
    recipe = _Brains(
        subjects,
        float(spacing),
        scanner,
        float(missing_rate),
        seed,
        (first, second, third),
        low_grade=float(low_grade),
    )
    return write_cohort(out, recipe, workers, force=force)


def write_cohort(out: str | os.PathLike[str], recipe: Recipe, workers: int, *, force: bool) -> Path:
    """Write the subjects of a recipe and their cohort file, or what is still missing of them.

    Args:
        out: Folder to make.
        recipe: What to make.
        workers: Processes; 0 works in this one.
        force: Replace a phantom cohort that is already there.

    Returns:
        Path of `cohort.json`.

    Raises:
        UserError: A value out of range, `out` already holds something, or the disk is full.
    """
    recipe.check()
    folder = Path(out)
    try:
        _open(folder, recipe, force)
        _make_all(folder, recipe, workers)
        return _write_cohort(folder, recipe)
    except OSError as error:
        raise UserError(
            f"expected to write {error.filename or folder}, got '{error.strerror}'; mend that and repeat the command"
        ) from error


def _open(folder: Path, recipe: Recipe, force: bool) -> None:
    """Leave `folder` holding this recipe and at most finished subjects of it."""
    note = folder / "phantom.json"
    ours = _read_note(note)
    if folder.exists() and ours is None and any(folder.iterdir()):
        raise UserError(f"expected a new or empty folder, got {folder}, which holds other files; choose another --out")
    wanted = json.loads(json.dumps(asdict(recipe)))
    if ours is not None and (
        force or (ours.get("kind"), ours["recipe"]) != (recipe.kind, wanted) or (folder / "cohort.json").exists()
    ):
        if not force:
            raise UserError(
                f"expected a new folder, got {folder}, which holds a phantom cohort; use --force to replace it"
            )
        (folder / "cohort.json").unlink(missing_ok=True)
        for path in folder.glob("sub-*"):
            shutil.rmtree(path)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(".sub-*"):
        shutil.rmtree(path)
    _write_json(note, {"phantom": True, "kind": recipe.kind, "recipe": wanted})


def _read_note(note: Path) -> dict[str, object] | None:
    """What an earlier call noted, None where no phantom cohort is."""
    try:
        content = json.loads(note.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("phantom") is True and "recipe" in content else None


def _make_all(folder: Path, recipe: Recipe, workers: int) -> None:
    todo = [i for i, name in enumerate(recipe.names()) if not (folder / name).exists()]
    if len(todo) < recipe.subjects:
        log.info("%d of %d subjects are already there", recipe.subjects - len(todo), recipe.subjects)
    columns = (
        TextColumn(f"phantoms ({recipe.kind})"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=recipe.subjects, completed=recipe.subjects - len(todo))
        for _ in _run(folder, recipe, todo, workers):
            progress.advance(task)


def _run(folder: Path, recipe: Recipe, todo: list[int], workers: int) -> Iterator[int]:
    """Make the subjects in this process or in others, yielding after each."""
    if workers == 0 or not todo:
        for index in todo:
            _make(folder, recipe, index)
            yield index
        return
    with ExitStack() as stack:
        # spawn: a forked copy of a process that has used torch's threads may hang
        pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        )
        stack.callback(pool.shutdown, cancel_futures=True)
        running = {pool.submit(_make, folder, recipe, index): index for index in todo}
        for done in as_completed(running):
            done.result()
            yield running[done]


def _make(folder: Path, recipe: Recipe, index: int) -> None:
    """One subject's folder, complete or not there at all."""
    name = recipe.names()[index]
    made = recipe.make(index)
    reference = _reference(made, recipe.space)
    part = folder / f".{name}"
    part.mkdir()
    try:
        for modality in recipe.present(index):
            save_like(made.images[modality], reference, part / f"{name}-{modality}.nii.gz", kind="image")
        save_like(made.label, reference, part / f"{name}-seg.nii.gz", kind="label")
        note = {
            "phantom": True,
            "person": recipe.person(index),
            "scanner": recipe.scanner_of(index),
            "class": made.class_label,
            "truth": made.truth,
        }
        _write_json(part / "phantom.json", note)
        part.rename(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _reference(made: Phantom, space: str) -> Scan:
    """The grid of a phantom, in a named space."""
    scan = new_scan(made.label, Grid(made.label.shape, made.affine))
    scan.header.set_sform(made.affine, code=space)
    scan.header.set_qform(made.affine, code=space)
    return scan


def _write_cohort(folder: Path, recipe: Recipe) -> Path:
    names = recipe.names()
    content: dict[str, object] = {
        "name": recipe.name,
        "modalities": list(recipe.modalities),
        "labels": recipe.labels,
        "regions": recipe.regions,
        "classes": recipe.classes,
        "origin": {"phantom": True, "kind": recipe.kind, **asdict(recipe)},
    }
    for split, indices in recipe.splits().items():
        content[split] = [_entry(folder, names[i], recipe.person(i), recipe.present(i)) for i in indices]
    path = folder / "cohort.json"
    _write_json(path, content)
    return path


def _entry(folder: Path, name: str, person: str, present: tuple[str, ...]) -> dict[str, object]:
    note = json.loads((folder / name / "phantom.json").read_text())
    files = {key: f"{name}/{name}-{key}.nii.gz" for key in (*present, "seg")}
    return {"subject": name, "person": person, "site": note["scanner"], **files, "class": note["class"]}


def _write_json(path: Path, content: dict[str, object]) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
