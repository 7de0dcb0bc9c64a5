"""A prepared cohort: a folder with one index, `cache.json`, and one folder per subject under `entries`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medprism.data.cohort import SPLITS, Cohort
from medprism.data.entry import ABOUT, Entry
from medprism.data.intensity import Scale
from medprism.data.recipe import Recipe
from medprism.errors import UserError
from medprism.io.atomic import whole_file

__all__ = ["Cache", "Entry"]

INDEX, ENTRIES = "cache.json", "entries"
VERSION = 1
"""Of the files and of what is in them: raise it whenever `assemble` would make other numbers of the same scans."""


@dataclass(frozen=True, eq=False)
class Cache:
    """A prepared cohort.

    Attributes:
        path: Its folder.
        name: Name of the cohort.
        recipe: How it was prepared.
        labels: Label name -> value.
        regions: Region name -> the label values that make it.
        classes: Class name -> value.
        split_hash: Of the cohort's splits, see `Cohort.split_hash`.
        entries: Split -> its subjects.
    """

    path: Path
    name: str
    recipe: Recipe
    labels: dict[str, int]
    regions: dict[str, list[int]]
    classes: dict[str, int]
    split_hash: str
    entries: dict[str, list[Entry]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Canonical names in the order of the channels."""
        return self.recipe.modalities

    @property
    def typical_scales(self) -> dict[str, Scale]:
        """Modality -> median offset and scale of the training subjects, for intensities made "like training".

        A modality that no training subject has is an absent key.
        """
        typical = {}
        for modality in self.modalities:
            scales = [entry.scales[modality] for entry in self.subjects("training") if modality in entry.scales]
            if scales:
                offset, scale = np.median([(scale.offset, scale.scale) for scale in scales], axis=0).tolist()
                typical[modality] = Scale(offset, scale, scales[0].low, scales[0].high)
        return typical

    def subjects(self, split: str | None = None) -> list[Entry]:
        """The subjects of `training`, `validation` or `test`, or all for None.

        Raises:
            UserError: There is no such split.
        """
        if split is not None and split not in self.entries:
            raise UserError(f"expected a split among {', '.join(self.entries)}, got {split}")
        return [entry for name in self.entries for entry in self.entries[name] if split in (None, name)]

    def verify(self) -> None:
        """Compare every file of every subject with its checksum.

        Raises:
            UserError: One is damaged.
        """
        for entry in self.subjects():
            entry.verify()

    @classmethod
    def open(cls, path: str | Path) -> Cache:
        """Open a prepared cohort.

        Reads the index and each subject's description, and looks at the sizes of the files. Their content is checked
        when it is first read.

        Raises:
            UserError: It is none, of another version, unfinished, or damaged.
        """
        path = Path(path)
        index = read_index(path)
        if index is None:
            raise UserError(f"expected a prepared cohort, got no {INDEX} in {path}; run `medprism prepare` first")
        _require_version(path, index)
        if not index["complete"]:
            raise UserError(
                f"expected a finished cohort in {path}, got one whose preparation was interrupted; "
                "run the same `medprism prepare` again, finished subjects are kept"
            )
        try:
            return cls._from_index(path, index)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"expected a sound {path / INDEX}, got {error!r} in it; prepare again with --force"
            ) from error

    @classmethod
    def _from_index(cls, path: Path, index: Mapping[str, Any]) -> Cache:
        recipe = Recipe.from_dict(index["recipe"])
        cohort = index["cohort"]
        return cls(
            path=path,
            name=cohort["name"],
            recipe=recipe,
            labels=cohort["labels"],
            regions=cohort["regions"],
            classes=cohort["classes"],
            split_hash=cohort["split_hash"],
            entries={
                split: [_entry(path, recipe.modalities, row) for row in index["splits"][split]] for split in SPLITS
            },
        )


def head_of(cohort: Cohort, recipe: Recipe) -> dict[str, Any]:
    """The part of the index that says what a cache is of: two preparations with the same one may share a folder."""
    head = {
        "format": "medprism cache",
        "version": VERSION,
        "cohort": {
            "name": cohort.name,
            "labels": dict(cohort.labels),
            "label_map": {str(old): new for old, new in cohort.label_map.items()},
            "regions": {name: list(values) for name, values in cohort.regions.items()},
            "classes": dict(cohort.classes),
            "split_hash": cohort.split_hash,
        },
        "recipe": recipe.to_dict(),
    }
    same: dict[str, Any] = json.loads(json.dumps(head))  # lists for tuples, as it will be read back
    return same


def read_index(path: Path) -> dict[str, Any] | None:
    """The index of a cache, complete or not; None if there is none.

    Raises:
        UserError: The file is not the index of a cache.
    """
    try:
        index = json.loads((path / INDEX).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if path.is_file():
            told = f"a folder that `medprism prepare` wrote, got the file {path}; run it on the cohort file first"
        else:
            told = f"the index of a prepared cohort, got {error} in {path / INDEX}; run `medprism prepare` again"
        raise UserError(f"expected {told}") from error
    if not isinstance(index, dict) or index.get("format") != "medprism cache":
        raise UserError(
            f"expected the index of a prepared cohort, got something else, {path / INDEX}; run `medprism prepare` again"
        )
    return index


def write_index(path: Path, index: Mapping[str, Any]) -> None:
    """Write the index, whole or not at all.

    Raises:
        UserError: The system refused.
    """
    with whole_file(path / INDEX) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode())


def digest_of(folder: Path) -> str:
    """SHA-256 of an entry's description, which holds the checksums of all else."""
    return hashlib.sha256((folder / ABOUT).read_bytes()).hexdigest()


def _entry(path: Path, modalities: tuple[str, ...], row: Mapping[str, Any]) -> Entry:
    folder = path / ENTRIES / row["folder"]
    entry = Entry.load(
        folder,
        modalities,
        subject=row["subject"],
        person=row["person"],
        site=row["site"],
        class_label=row["class"],
    )
    if digest_of(folder) != row["digest"]:
        raise UserError(
            f"expected the prepared subject {entry.subject} as listed in {path / INDEX}, got another one in {folder}; "
            f"run `medprism prepare cohort.json --out {path}` again, it rebuilds what is damaged"
        )
    return entry


def _require_version(path: Path, index: Mapping[str, Any]) -> None:
    if index.get("version") != VERSION:
        raise UserError(
            f"expected a prepared cohort of version {VERSION}, got version {index.get('version')} in {path}; "
            "prepare it again with this medprism and --force"
        )
