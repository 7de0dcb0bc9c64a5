"""One person at one visit: where the scans and labels are."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medprism.data.modalities import canonical
from medprism.errors import UserError

_OTHER_KEYS = ("subject", "person", "site", "class", "seg")
_LABEL_ON = "seg."  # "seg.ct": the label on the grid of the CT


@dataclass(frozen=True)
class Subject:
    """One person at one visit.

    Attributes:
        subject: Name, unique in the cohort.
        person: Who it is; splits keep a person on one side.
        images: Canonical modality → path relative to the cohort's root; `file.nii.gz#2` is volume 2 (counted from 0) of
            a 4-D file. An absent modality is an absent key.
        seg: Path of the label, or None.
        segs: Modality → path of the label on that modality's own grid; empty when one label serves all.
        site: Where it was taken, or None.
        class_label: Class of the whole subject, or None.
    """

    subject: str
    person: str
    images: Mapping[str, str]
    seg: str | None = None
    segs: Mapping[str, str] = field(default_factory=dict)
    site: str | None = None
    class_label: int | None = None

    def paths(self) -> Iterator[str]:
        """Every path that the subject names, each once, images first."""
        labels = (*self.segs.values(), *(() if self.seg is None else (self.seg,)))
        return iter(dict.fromkeys((*self.images.values(), *labels)))

    def label_for(self, modality: str) -> str | None:
        """Path of the label that lies on the grid of `modality` where there is one, else of the common label."""
        return self.segs.get(modality, self.seg)

    def keeping(self, modalities: tuple[str, ...]) -> "Subject":
        """The subject with only these modalities, in this order; a label on the grid of another one goes with it."""
        segs = {m: self.segs[m] for m in modalities if m in self.segs}
        gone = self.seg in self.segs.values() and self.seg not in segs.values()
        return replace(
            self,
            images={m: self.images[m] for m in modalities if m in self.images},
            seg=next(iter(segs.values()), self.seg) if gone else self.seg,
            segs=segs,
        )

    def moved(self, old: Path, new: Path) -> "Subject":
        """The subject with its paths relative to folder `new` instead of `old` (both resolved)."""

        def move(relative: str) -> str:
            if os.path.isabs(relative):
                return relative
            try:
                return Path(os.path.relpath(old / relative, new)).as_posix()
            except ValueError:  # another drive of Windows
                return (old / relative).as_posix()

        return replace(
            self,
            images={m: move(p) for m, p in self.images.items()},
            seg=None if self.seg is None else move(self.seg),
            segs={m: move(p) for m, p in self.segs.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """The flat dict of the cohort file; what the subject lacks is no key."""
        head = {"subject": self.subject, "person": self.person, "site": self.site}
        labels = {"seg": self.seg, **{f"{_LABEL_ON}{m}": p for m, p in self.segs.items()}}
        item = head | dict(self.images) | labels | {"class": self.class_label}
        return {key: value for key, value in item.items() if value is not None}

    @classmethod
    def from_dict(cls, item: object, where: str) -> "Subject":
        """A subject from its dict in the cohort file; modality names may be aliases.

        Args:
            item: The dict.
            where: File and position, for the message.

        Raises:
            UserError: If a key is no modality, two keys are the same modality, or a value has the wrong type.
        """
        if not isinstance(item, dict) or not isinstance(item.get("subject"), str):
            raise UserError(f"{where}: expected an object with a text `subject`, got {str(item)[:60]!r}")
        where = f"{where} ({item['subject']})"
        others = [key for key in item if key not in _OTHER_KEYS]
        images = _by_modality({key: item[key] for key in others if not key.startswith(_LABEL_ON)}, where)
        segs = _by_modality({k.removeprefix(_LABEL_ON): item[k] for k in others if k.startswith(_LABEL_ON)}, where)
        for key, value in item.items():
            right = isinstance(value, int) and not isinstance(value, bool) if key == "class" else isinstance(value, str)
            if not right:
                wanted = "a whole number" if key == "class" else "a text"
                raise UserError(
                    f"{where}: expected {wanted} for {key!r}, got {value!r}; what is absent is an absent key"
                )
        return cls(
            subject=item["subject"],
            person=str(item.get("person", item["subject"])),
            images=images,
            seg=item.get("seg"),
            segs=segs,
            site=item.get("site"),
            class_label=item.get("class"),
        )


def without_volume(path: Path) -> Path:
    """`scan.nii.gz#2` → `scan.nii.gz`."""
    stem, mark, volume = path.name.rpartition("#")
    return path.with_name(stem) if mark and volume.isdigit() else path


def _by_modality(paths: dict[str, str], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, path in paths.items():
        try:
            modality = canonical(key)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if modality in found:
            raise UserError(f"{where}: two files for {modality}, {found[modality]} and {path}; keep one")
        found[modality] = path
    return found
