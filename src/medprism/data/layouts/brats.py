"""BraTS: one folder per subject, `<ID>/<ID><mark><modality>.nii[.gz]`, at most three folders below the root.

2018-2021 write `_t1 _t1ce _t2 _flair _seg`, and the enhancing tumour as label 4; 2023 and later write `-t1n -t1c -t2w
-t2f -seg`, and 3. Both become 3 by the cohort's label map. Glioma after treatment (2024, visits from -100 on) has the
resection cavity as 4. Other cohorts with files named in this way are read too; then nobody says what the labels mean.

Sources: https://www.synapse.org/brats and the names that the BrainLesion/BraTS package asks for.
"""

import re
from pathlib import Path

from medprism.data.layouts.found import Found, niftis, person_of, relative, some, stem, walk
from medprism.data.modalities import lookup
from medprism.data.subject import Subject
from medprism.errors import UserError

_DEPTH = 3
_LABELS = ("seg", "gtv")
_TUMOUR = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
_REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
_GRADES = {"LGG": 0, "HGG": 1}


def matches(root: Path) -> bool:
    """Whether a folder at or below the root has files that begin with its own name and end with a modality."""
    return any(_parts(folder) for folder in walk(root, _DEPTH))


def read(root: Path) -> Found:
    """Subjects, and what the labels mean as far as the names tell."""
    found = Found(root.name)
    suffixes: set[str] = set()
    for folder in walk(root, _DEPTH):
        parts = _parts(folder)
        if not parts:
            continue
        images, label, ignored = _sorted(parts, folder, found)
        grade = next((_GRADES[p.name] for p in folder.parents if p.name in _GRADES and p.is_relative_to(root)), None)
        found.add(
            Subject(
                folder.name,
                person_of(folder.name),
                {m: relative(p, root) for m, p in images.items()},
                seg=None if label is None else relative(label, root),
                class_label=grade,
            )
        )
        suffixes |= set(parts)
        if ignored:
            found.notes.append(f"{folder.name}: not read, as no modality or label is named so: {some(ignored)}")
    if any(s.class_label is not None for s in found.subjects()):
        found.classes = _GRADES
    _name_labels(found, old=any(suffix.startswith("_") and suffix != "_gtv" for suffix in suffixes))
    return found


def _parts(folder: Path) -> dict[str, Path]:
    """Mark and modality (or label) → file, of the files that begin with the folder's name."""
    parts = {}
    for path in niftis(folder):
        suffix = stem(path).removeprefix(folder.name)
        if suffix != stem(path) and suffix[:1] in ("-", "_") and (lookup(suffix) or suffix[1:].lower() in _LABELS):
            parts[suffix.lower()] = path
    return parts


def _sorted(parts: dict[str, Path], folder: Path, found: Found) -> tuple[dict[str, Path], Path | None, list[str]]:
    images: dict[str, Path] = {}
    label = None
    for suffix, path in parts.items():
        modality = lookup(suffix)
        if modality is None:
            label = path
        elif modality in images:
            found.problem(folder.name, f"two files for {modality}, {images[modality].name} and {path.name}; keep one")
        else:
            images[modality] = path
    return images, label, [p.name for p in niftis(folder) if p not in parts.values()]


def _name_labels(found: Found, *, old: bool) -> None:
    """BraTS' own meaning of the values; nothing when the names are not BraTS', or its years disagree."""
    names = [s.subject for s in found.subjects() if s.seg is not None]
    treated = [n for n in names if re.fullmatch(r"BraTS-GLI-\d+-[1-9]\d\d", n)]
    if not names or not all("brats" in name.lower() for name in names):
        return
    if old and treated:
        raise UserError(
            f"{found.name}: BraTS until 2021 stores the enhancing tumour as 4, {treated[0]} the resection cavity; "
            "inspect the two sets apart"
        )
    if any("-PED-" in name for name in names):
        found.notes.append(
            "BraTS-PED numbers its labels otherwise in 2023 and 2024: give the values their names in the cohort file"
        )
    elif all("-MEN-RT-" in name for name in names):
        found.labels = {"background": 0, "GTV": 1}
    else:
        found.labels = _TUMOUR | ({"RC": 4} if treated else {})
        found.regions = _REGIONS
        found.label_map = {4: 3} if old else {}
