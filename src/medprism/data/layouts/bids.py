"""BIDS: `sub-<x>[/ses-<y>]/{anat,pet}/…_<suffix>.nii.gz`, and `ct/…_ct.nii.gz`, which the standard does not have yet.

Person = sub, subject = sub + ses. T1w with the entity `ce` is contrast-enhanced; a PET whose `rec` begins with `nac`
is not attenuation-corrected. Of several runs the plainest name is taken (fewest entities, then by name). Labels are
`_dseg` files, or masks with a `label` that is a lesion, beside the scans or in `derivatives/`.

Source: https://bids-specification.readthedocs.io.
"""

from collections.abc import Iterator
from pathlib import Path

from medprism.data.layouts.found import Found, folders, niftis, relative, stem
from medprism.data.subject import Subject

_FOLDERS = ("anat", "pet", "ct")
_SUFFIXES = {"T2w": "t2w", "FLAIR": "t2f", "PDw": "pd", "angio": "mra", "ct": "ct", "CT": "ct"}
_LESIONS = ("lesion", "tumor", "tumour", "GTV", "L")


def matches(root: Path) -> bool:
    """Whether there is a `sub-…` folder with anat, pet or ct in it, perhaps below `ses-…`."""
    return any(niftis(visit / kind) for visit, _ in _visits(root) for kind in _FOLDERS)


def read(root: Path) -> Found:
    """Visits of all participants."""
    found = Found(root.name)
    for visit, name in _visits(root):
        files = [p for kind in _FOLDERS for p in niftis(visit / kind)]
        scans: dict[str, list[Path]] = {}
        for path in files:
            if modality := _modality(path):
                scans.setdefault(modality, []).append(path)
        derived = [p for d in _derivatives(root, visit) for kind in _FOLDERS for p in niftis(d / kind)]
        labels = sorted((p for p in (*files, *derived) if _is_label(p)), key=_plainness)
        if not scans and not labels:
            continue
        chosen = {m: min(paths, key=_plainness) for m, paths in scans.items()}
        for modality, paths in scans.items():
            if len(paths) > 1:
                found.notes.append(f"{name}: {chosen[modality].name} taken of {len(paths)} scans that are {modality}")
        if len(labels) > 1:
            found.notes.append(f"{name}: {labels[0].name} taken of {len(labels)} labels")
        images = {m: relative(p, root) for m, p in chosen.items()}
        seg = relative(labels[0], root) if labels else None
        found.add(Subject(name, name.split("_")[0], images, seg=seg))
    return found


def _visits(root: Path) -> Iterator[tuple[Path, str]]:
    """Folder and name of each visit: of the participant where there are no sessions."""
    for participant in folders(root):
        if not participant.name.startswith("sub-"):
            continue
        sessions = [p for p in folders(participant) if p.name.startswith("ses-")]
        for session in sessions:
            yield session, f"{participant.name}_{session.name}"
        if not sessions:
            yield participant, participant.name


def _derivatives(root: Path, visit: Path) -> list[Path]:
    pipelines = folders(root / "derivatives") if (root / "derivatives").is_dir() else []
    return [pipeline / visit.relative_to(root) for pipeline in pipelines]


def _entities(path: Path) -> tuple[dict[str, str], str]:
    *pairs, suffix = stem(path).split("_")
    return {key: value for key, _, value in (pair.partition("-") for pair in pairs)}, suffix


def _modality(path: Path) -> str | None:
    entities, suffix = _entities(path)
    if entities.get("desc", "").startswith("synthetic"):  # made by a model: never a scan to learn from
        return None
    if suffix == "T1w":
        return "t1c" if "ce" in entities else "t1n"
    if suffix == "pet":
        return "nac" if entities.get("rec", "").startswith("nac") else "pet"
    return _SUFFIXES.get(suffix)


def _is_label(path: Path) -> bool:
    entities, suffix = _entities(path)
    return suffix == "dseg" or (suffix == "mask" and entities.get("label") in _LESIONS)


def _plainness(path: Path) -> tuple[int, str]:
    return len(_entities(path)[0]), path.name
