"""Flat folders: `<subject>/<modality>.nii.gz`, or one subject's files directly in the root.

A modality may have any of its aliases as name. A file whose name begins with `seg`, `label`, `lesion`, `gtv` or
`tumor` is the label. Other files are left alone and named.
"""

import re
from pathlib import Path

from medprism.data.layouts.found import Found, folders, niftis, person_of, relative, some, stem
from medprism.data.modalities import lookup
from medprism.data.subject import Subject

_LABEL = re.compile(r"(seg|label|lesion|gtv|tumou?r)([^a-z].*|s|mentation)?", re.IGNORECASE)


def matches(root: Path) -> bool:
    """Whether a folder below the root, or the root, has a NIfTI file that is named as a modality."""
    return any(lookup(stem(path)) for folder in (root, *folders(root)) for path in niftis(folder))


def read(root: Path) -> Found:
    """Subjects; what the values of the labels mean is not said anywhere."""
    found = Found(root.name)
    for folder in (root, *folders(root)):
        if any(lookup(stem(p)) or _LABEL.fullmatch(stem(p)) for p in niftis(folder)):
            found.add(_subject(folder, root, found))
        elif files := niftis(folder):
            found.notes.append(f"{folder.name}: not a subject, as no file is named as a modality: {_names(files)}")
    return found


def _subject(folder: Path, root: Path, found: Found) -> Subject:
    images: dict[str, str] = {}
    labels: list[Path] = []
    ignored: list[Path] = []
    for path in niftis(folder):
        modality = lookup(stem(path))
        if modality in images:
            found.problem(
                folder.name, f"two files for {modality}, {Path(images[modality]).name} and {path.name}; keep one"
            )
        elif modality:
            images[modality] = relative(path, root)
        else:
            (labels if _LABEL.fullmatch(stem(path)) else ignored).append(path)
    if len(labels) > 1:
        found.problem(
            folder.name, f"{len(labels)} label files, {_names(labels)}; keep one, or name the others otherwise"
        )
    if ignored:
        found.notes.append(f"{folder.name}: not read, as no modality or label is named so: {_names(ignored)}")
    seg = relative(labels[0], root) if labels else None
    return Subject(folder.name, person_of(folder.name), images, seg=seg)


def _names(files: list[Path]) -> str:
    return some([path.name for path in files])
