"""IBSI's validation set: `<patient>/{CT,PET,MR_T1}_image.nii.gz`, each with its `_mask.nii.gz` on the same grid.

The scans of a patient lie on different grids in one world space; so do the masks of the same tumour. All are kept: the
label of a grid is the mask drawn for it, not a resampled one.

Source: https://github.com/theibsi/data_sets, `ibsi_validation/nifti`.
"""

from pathlib import Path

from medprism.data.layouts.found import Found, folders, niftis, person_of, relative, some, stem
from medprism.data.modalities import lookup
from medprism.data.subject import Subject

_IMAGE, _MASK = "_image", "_mask"


def matches(root: Path) -> bool:
    """Whether a folder below the root (or the root) has a `<modality>_image.nii.gz`."""
    return any(_patient(folder) for folder in (root, *folders(root)))


def read(root: Path) -> Found:
    """Patients with the masks by grid; the tumour is the gross tumour volume."""
    found = Found(root.name, labels={"background": 0, "GTV": 1})
    for folder in (root, *folders(root)):
        images = _patient(folder)
        if not images:
            continue
        masks = {m: p.with_name(p.name.replace(_IMAGE, _MASK)) for m, p in images.items()}
        segs = {m: relative(p, root) for m, p in masks.items() if p.is_file()}
        scans = {m: relative(p, root) for m, p in images.items()}
        found.add(Subject(folder.name, person_of(folder.name), scans, seg=next(iter(segs.values()), None), segs=segs))
        read_files = {*images.values(), *masks.values()}
        ignored = [p.name for p in niftis(folder) if p not in read_files]
        if ignored:
            found.notes.append(f"{folder.name}: not read, as no modality is named so: {some(ignored)}")
    return found


def _patient(folder: Path) -> dict[str, Path]:
    """Modality → image, in the canonical order of names."""
    images = {}
    for path in niftis(folder):
        name = stem(path)
        if name.endswith(_IMAGE) and (modality := lookup(name.removesuffix(_IMAGE))):
            images[modality] = path
    return images
