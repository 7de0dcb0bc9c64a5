"""The cohort: subjects, order of modalities, label names and splits, stored as one JSON file.

The file has one flat dict per subject under `training`, `validation` and `test`, so that MONAI's datalist reader loads
it; an absent modality is an absent key. Paths are relative to the file. Beyond the labels' names and the regions made
of them it holds

- `label_map`: value in the label files → value in `labels`, for files that are numbered otherwise (BraTS until 2020
  stores the enhancing tumour as 4: `{"4": 3}`). Values not named in it stay. Files on disk are never rewritten; whoever
  reads a label file passes it through `Cohort.relabel`.
- `classes`: names of the whole-subject classes, value of a subject under its key `class`.
- `seg.<modality>`: the label on the grid of that modality, where each grid has its own; `seg` is then one of them.
- `origin`: how the file was made (layout, splits, seed, …); nothing depends on it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medprism.data import cohort_file
from medprism.data.labels import relabel
from medprism.data.modalities import MODALITIES
from medprism.data.subject import Subject, without_volume
from medprism.errors import UserError

Split = Literal["training", "validation", "test"]
__all__ = ["SPLITS", "Cohort", "Split", "Subject"]

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Cohort:
    """Subjects in three splits, and what their files mean. Checked when it is made.

    Attributes:
        name: Name of the cohort.
        modalities: Canonical names in the order of the channels.
        labels: Name → value in a label array; empty when no subject has a label.
        regions: Name → the values that make it up, such as `{"TC": [1, 3]}`.
        root: Folder that the subjects' paths are relative to; absolute.
        training: Subjects to learn from.
        validation: Subjects to choose by.
        test: Subjects to report on.
        label_map: Value in the label files → value in `labels`; others stay.
        classes: Name → value of the whole-subject classes.
        origin: How it was made.

    Raises:
        UserError: If a subject is named twice or has no scan, a person is on two sides, or names and numbers of
            modalities, labels and classes do not fit together.
    """

    name: str
    modalities: tuple[str, ...]
    labels: Mapping[str, int]
    regions: Mapping[str, list[int]]
    root: Path
    training: tuple[Subject, ...] = ()
    validation: tuple[Subject, ...] = ()
    test: tuple[Subject, ...] = ()
    label_map: Mapping[int, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).resolve())
        self._check_modalities()
        self._check_labels()
        self._check_subjects()

    def subjects(self, split: str | None = None) -> tuple[Subject, ...]:
        """Subjects of one split, or of all in the order training, validation, test.

        Raises:
            UserError: If there is no such split.
        """
        if split is None:
            return self.training + self.validation + self.test
        if split not in SPLITS:
            raise UserError(f"expected a split ({' '.join(SPLITS)}), got {split!r}")
        chosen: tuple[Subject, ...] = getattr(self, split)
        return chosen

    @property
    def split_hash(self) -> str:
        """SHA-256 of who is on which side: the same for the same split, whatever the order or the paths."""
        sides = sorted((split, s.subject, s.person) for split in SPLITS for s in self.subjects(split))
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()

    def path(self, relative: str) -> Path:
        """Where a subject's file is (a trailing `#k` stays)."""
        return self.root / relative

    def relabel(self, label: NDArray[Any], where: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Values of a label file → values of `labels`.

        Args:
            label: Integers as read from the file, any shape.
            where: Subject or file, for the message.

        Returns:
            uint8, or uint16 when the cohort has values above 255; the same shape.

        Raises:
            UserError: If a value is outside the declared set.
        """
        return relabel(label, self.labels, self.label_map, where)

    def moved(self, root: Path) -> "Cohort":
        """The same cohort with paths relative to another folder."""
        root = Path(root).resolve()
        if root == self.root:
            return self
        training, validation, test = (tuple(s.moved(self.root, root) for s in self.subjects(split)) for split in SPLITS)
        return replace(self, root=root, training=training, validation=validation, test=test)

    def save(self, path: Path, *, force: bool = False) -> Path:
        """Write the cohort file, atomically; paths are written relative to it.

        Raises:
            UserError: If the file exists and `force` is not set.
        """
        path = Path(path)
        moved = self.moved(path.parent)
        splits = {split: [s.to_dict() for s in moved.subjects(split)] for split in SPLITS}
        head = {
            "name": self.name,
            "modalities": list(self.modalities),
            "labels": dict(self.labels),
            "regions": {name: list(values) for name, values in self.regions.items()},
            "label_map": {str(old): new for old, new in self.label_map.items()},
            "classes": dict(self.classes),
            "origin": dict(self.origin),
        }
        optional = ("label_map", "classes", "origin")
        return cohort_file.write(path, {k: v for k, v in head.items() if v or k not in optional} | splits, force=force)

    @classmethod
    def load(cls, path: Path, *, check_files: bool = True) -> "Cohort":
        """Read a cohort file; aliases of modalities become canonical names.

        Args:
            path: The JSON file.
            check_files: Also look whether every file is there (not whether it can be read).

        Raises:
            UserError: If the file is missing, not JSON, or does not describe a cohort; if a scan's file is missing.
        """
        path = Path(path)
        cohort = cls(root=path.parent, **cohort_file.read(path, splits=SPLITS))
        if check_files:
            cohort.check_files()
        return cohort

    def check_files(self) -> None:
        """Raise a UserError that names the subject when a file is not there."""
        for subject in self.subjects():
            for relative in subject.paths():
                if not without_volume(self.path(relative)).is_file():
                    raise UserError(
                        f"{subject.subject}: expected the file {self.path(relative)}, it is missing; "
                        "restore it, or run `medprism inspect` on the folder again"
                    )

    def _check_modalities(self) -> None:
        if not self.modalities:
            raise UserError(f"cohort {self.name!r}: expected at least one modality, got none")
        for modality in self.modalities:
            if modality not in MODALITIES:
                raise UserError(f"cohort {self.name!r}: expected canonical modality names, got {modality!r}")
        if len(set(self.modalities)) < len(self.modalities):
            raise UserError(f"cohort {self.name!r}: a modality is listed twice in {' '.join(self.modalities)}")

    def _check_labels(self) -> None:
        values = set(self.labels.values())
        if self.labels and (0 not in values or len(values) < len(self.labels)):
            raise UserError(
                f"cohort {self.name!r}: expected labels with different values, background 0 among them, "
                f"got {dict(self.labels)}"
            )
        if any(not 0 <= value <= 65535 for value in values):
            raise UserError(f"cohort {self.name!r}: expected label values 0 to 65535, got {sorted(values)}")
        for region, parts in self.regions.items():
            if not parts or not set(parts) <= values:
                raise UserError(
                    f"cohort {self.name!r}: expected region {region!r} to be made of label values {sorted(values)}, "
                    f"got {list(parts)}"
                )
        if not set(self.label_map.values()) <= values:
            raise UserError(
                f"cohort {self.name!r}: expected label_map to lead to label values {sorted(values)}, "
                f"got {dict(self.label_map)}"
            )

    def _check_subjects(self) -> None:
        side_of: dict[str, str] = {}
        seen: set[str] = set()
        for split in SPLITS:
            for subject in self.subjects(split):
                if subject.subject in seen:
                    raise UserError(f"subject {subject.subject!r} is listed twice; give each visit its own name")
                seen.add(subject.subject)
                other = side_of.setdefault(subject.person, split)
                if other != split:
                    raise UserError(
                        f"person {subject.person!r} is on two sides, {other} and {split} "
                        f"(subject {subject.subject!r}); put all visits of a person into one split"
                    )
                self._check_subject(subject)
        if not seen:
            raise UserError(f"cohort {self.name!r}: expected at least one subject, got none")

    def _check_subject(self, subject: Subject) -> None:
        if not re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*", subject.subject):
            raise UserError(f"expected a subject name that can name a folder, got {subject.subject!r}; rename it")
        if not subject.images:
            raise UserError(f"subject {subject.subject!r} has no scan; remove it or add one of {self.modalities}")
        strange = [m for m in (*subject.images, *subject.segs) if m not in self.modalities]
        if strange:
            raise UserError(
                f"subject {subject.subject!r}: expected modalities {' '.join(self.modalities)}, got {strange[0]!r}; "
                "add it to `modalities` or remove the key"
            )
        if not set(subject.segs) <= set(subject.images):
            raise UserError(f"subject {subject.subject!r} has a label on the grid of a scan that it lacks")
        if next(iter(subject.segs), subject.seg) is not None and not self.labels:
            raise UserError(f"subject {subject.subject!r} has a label but the cohort names no `labels`")
        if subject.class_label is not None and self.classes and subject.class_label not in self.classes.values():
            raise UserError(
                f"subject {subject.subject!r}: expected a class of {dict(self.classes)}, got {subject.class_label}"
            )
