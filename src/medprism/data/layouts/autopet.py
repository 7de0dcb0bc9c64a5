"""autoPET: FDG-PET-CT-Lesions as a tree of studies, or autoPET III and later in nnU-Net's form.

The tree is `<patient>/<study>/{CTres,SUV,SEG}.nii.gz` (CT is the CT on its own grid, CTres the one resampled to PET;
CTres is taken). The other form is `imagesTr/<tracer>_<patient>_<study>_<channel>.nii.gz` with channel 0 the CT and
channel 1 the PET in SUV, whatever `dataset.json` calls them: it calls both CT.

Sources: https://doi.org/10.7937/gkr0-xv29, https://doi.org/10.57754/FDAT.6gjsg-zcg93.
"""

import re
from pathlib import Path

from medprism.data.layouts import nnunet
from medprism.data.layouts.found import Found, niftis, relative, stem, walk
from medprism.data.subject import Subject

_LABELS = {"background": 0, "lesion": 1}
_TREE = {"ct": ("ctres", "ct"), "pet": ("suv",)}  # the first that is there
_SITES = {"fdg": "UKT", "psma": "LMU"}  # FDG was taken in Tübingen, PSMA in Munich


def matches(root: Path) -> bool:
    """Whether there is a `<patient>/<study>/SUV.nii.gz`, or cases named `fdg_…` or `psma_…` in `imagesTr`."""
    return bool(_cases(root)) or any(
        "suv" in _files(study) and {"ctres", "ct", "seg"} & _files(study).keys() for study in _studies(root)
    )


def read(root: Path) -> Found:
    """Studies; a patient may have several."""
    found = _read_cases(root) if _cases(root) else _read_tree(root)
    found.labels, found.regions = _LABELS, {}
    return found


def _read_cases(root: Path) -> Found:
    found = nnunet.read_cases(root, {0: "ct", 1: "pet"}, {})
    for side, subjects in found.sides.items():
        found.sides[side] = [
            Subject(s.subject, s.person, s.images, s.seg, site=_SITES.get(s.subject.split("_")[0])) for s in subjects
        ]
    return found


def _read_tree(root: Path) -> Found:
    found = Found(root.name, modalities=("ct", "pet"))
    for study in _studies(root):
        files = _files(study)
        images = {m: next((files[n] for n in names if n in files), None) for m, names in _TREE.items()}
        if not any(images.values()):
            continue
        patient = study.parent.name
        found.add(
            Subject(
                # Studies are named in free text with blanks, which the name of a folder should not have.
                re.sub(r"[^\w.+-]+", "-", f"{patient}_{study.name}"),
                patient,
                {m: relative(path, root) for m, path in images.items() if path is not None},
                seg=relative(files["seg"], root) if "seg" in files else None,
            )
        )
    return found


def _cases(root: Path) -> list[str]:
    names = [stem(p) for p in niftis(root / "imagesTr")]
    return names if names and nnunet.is_autopet(names) else []


def _studies(root: Path) -> list[Path]:
    """Folders two or three below the root: with or without one folder around all patients."""
    return [p for p in walk(root, 3) if len(p.relative_to(root).parts) >= 2]


def _files(study: Path) -> dict[str, Path]:
    return {stem(p).lower(): p for p in niftis(study)}
