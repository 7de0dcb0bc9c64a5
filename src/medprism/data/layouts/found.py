"""What a layout reader hands over, and the few helpers that all readers share."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medprism.data.cohort import Split
from medprism.data.subject import Subject
from medprism.errors import UserError

_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# Names that carry the person and the visit: BraTS 2023+, BIDS, autoPET.
_PERSONS = (
    re.compile(r"(BraTS-[A-Za-z-]+-\d+)-\d+"),
    re.compile(r"(sub-[A-Za-z0-9]+)_ses-.+"),
    re.compile(r"((?:fdg|psma)_[0-9a-fA-F]+)_.+"),
)


@dataclass
class Found:
    """Subjects as they lie on disk; nothing has been opened yet.

    Attributes:
        name: Name of the data set.
        sides: Subjects by the side that the layout itself puts them on (all in training when it has no sides).
        modalities: Their order; None for the canonical order of those that occur.
        labels: Name → value; None when the layout does not say, so that the values must be looked up in the files.
        regions: Name → values.
        label_map: Value in the files → value in `labels`.
        classes: Name → value of the whole-subject classes.
        problems: Subject → what makes it unusable.
        notes: What the user should know, a line each.
    """

    name: str
    sides: dict[Split, list[Subject]] = field(default_factory=lambda: {"training": [], "validation": [], "test": []})
    modalities: tuple[str, ...] | None = None
    labels: Mapping[str, int] | None = None
    regions: Mapping[str, list[int]] = field(default_factory=dict)
    label_map: Mapping[int, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def subjects(self) -> list[Subject]:
        """All subjects, side after side."""
        return [subject for side in self.sides.values() for subject in side]

    def add(self, subject: Subject, side: Split = "training") -> None:
        """Add a subject.

        Raises:
            UserError: If its name is taken.
        """
        if subject.subject in self._names:
            raise UserError(f"subject {subject.subject!r} is found twice; rename one of its folders or files")
        self._names.add(subject.subject)
        self.sides[side].append(subject)

    def problem(self, subject: str, text: str) -> None:
        """Remember what makes a subject unusable."""
        self.problems.setdefault(subject, []).append(text)


def is_nifti(path: Path) -> bool:
    """Whether the name is one of a NIfTI file (and no shadow file of macOS)."""
    return _NIFTI.search(path.name) is not None and not path.name.startswith(".")


def stem(path: Path) -> str:
    """`t1.nii.gz` → `t1`."""
    return _NIFTI.sub("", path.name)


def niftis(folder: Path) -> list[Path]:
    """NIfTI files directly in a folder, by name; none if there is no such folder."""
    return sorted(p for p in folder.iterdir() if is_nifti(p)) if folder.is_dir() else []


def folders(folder: Path) -> list[Path]:
    """Folders directly in a folder, by name, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def walk(root: Path, depth: int) -> Iterator[Path]:
    """The folder itself, then those below it to a depth, parents first."""
    yield root
    if depth:
        for folder in folders(root):
            yield from walk(folder, depth - 1)


def relative(path: Path, root: Path) -> str:
    """Path relative to the root with forward slashes."""
    return path.relative_to(root).as_posix()


def person_of(subject: str) -> str:
    """The person in a subject's name where a known convention tells: `BraTS-GLI-00001-002` → `BraTS-GLI-00001`."""
    for pattern in _PERSONS:
        if match := pattern.fullmatch(subject):
            return match[1]
    return subject


def some(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:3]) + (f", … ({len(names)} in all)" if len(names) > 3 else "")
