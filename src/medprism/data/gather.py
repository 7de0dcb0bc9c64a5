"""From a folder or a cohort file to checked subjects: the reading half of `inspect`."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from medprism.data import checks, layouts
from medprism.data.checks import Checked
from medprism.data.cohort import SPLITS, Cohort
from medprism.data.labels import numbered
from medprism.data.layouts import nnssl
from medprism.data.layouts.found import Found, some
from medprism.data.modalities import MODALITIES, canonical
from medprism.data.subject import Subject
from medprism.errors import UserError


def is_cohort_file(root: Path) -> bool:
    """Whether a path is that of a cohort file: any JSON file but nnssl's."""
    return root.suffix == ".json" and root.name != nnssl.FILE


def source(root: Path, layout: str) -> tuple[Found, Path, dict[str, Any]]:
    """Subjects of a folder, or of a cohort file.

    Args:
        root: Folder, cohort file, or nnssl's `pretrain_data.json`.
        layout: Name of a layout or `auto`; a cohort file has none.

    Returns:
        What was found, the folder that its paths are relative to, and its origin.

    Raises:
        UserError: If nothing is there, or nothing that is known.
    """
    if not is_cohort_file(root):
        base = (root.parent if root.name == nnssl.FILE else root).resolve()
        found, name = layouts.read(base, layout)
        if (base / "cohort.json").is_file():
            found.notes.append(f"the cohort file in {root} was not read; to check it, inspect {root / 'cohort.json'}")
        return found, base, {"layout": name}
    if layout != "auto":
        raise UserError(f"{root} is a cohort file, which has no layout, got --layout {layout}; name the folder instead")
    # A missing file is shown with the other problems of its subject.
    cohort = Cohort.load(root, check_files=False)
    found = Found(
        cohort.name,
        {split: list(cohort.subjects(split)) for split in SPLITS},
        modalities=cohort.modalities,
        labels=cohort.labels,
        regions=cohort.regions,
        label_map=cohort.label_map,
        classes=cohort.classes,
    )
    return found, cohort.root, dict(cohort.origin)


def restrict(found: Found, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Keep only the wanted modalities of every subject; give the order of the cohort's.

    Raises:
        UserError: If a name is unknown, repeated, or no subject has that modality.
    """
    there = {m for subject in found.subjects() for m in subject.images}
    if wanted is None:
        return tuple(m for m in found.modalities or MODALITIES if m in there) or tuple(found.modalities or ())
    order = tuple(canonical(name) for name in wanted)
    if len(set(order)) < len(order):
        raise UserError(f"expected different modalities, got {' '.join(wanted)}")
    if absent := [m for m in order if m not in there]:
        names = " ".join(m for m in MODALITIES if m in there)
        raise UserError(f"no subject has a scan of {absent[0]}; there are {names}")
    without = {s.subject for s in found.subjects() if s.images and not set(s.images) & set(order)}
    if without:
        found.notes.append(f"left out, as they have none of {' '.join(order)}: {some(sorted(without))}")
    for side, subjects in found.sides.items():
        found.sides[side] = [s.keeping(order) for s in subjects if s.subject not in without]
    return order


def check_all(found: Found, base: Path, *, quick: bool) -> list[Checked]:
    """Check every subject, some at a time: gzip and numpy work beside each other in threads."""
    labels = checks.Labels(found.labels, found.label_map)
    subjects = found.subjects()

    def one(subject: Subject) -> Checked:
        checked = checks.check(subject, base, labels, quick=quick)
        checked.fatal += found.problems.get(subject.subject, [])
        return checked

    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        return list(progress.track(pool.map(one, subjects), total=len(subjects), description="reading"))


def name_labels(found: Found, usable: Sequence[Checked]) -> Mapping[str, int]:
    """The declared labels, or numbers for names when nobody declared any."""
    if found.labels is not None:
        return found.labels
    values = set().union(*(c.values for c in usable))
    if not any(c.subject.seg is not None for c in usable):
        return {}
    labels = numbered(values)
    names = ", ".join(name for name in labels if name != "background") or "none but background"
    found.notes.append(f"nothing says what the label values mean: called {names}; name them in the cohort file")
    return labels


def duplicate_scans(checked: Sequence[Checked]) -> list[str]:
    """A line for every scan that is another one, voxel for voxel."""
    return [f"{first} and {second} are the same, voxel for voxel" for first, second in checks.duplicates(checked)]
