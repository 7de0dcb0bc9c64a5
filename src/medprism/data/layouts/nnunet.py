"""nnU-Net raw: `dataset.json` and `imagesTr/<case>_<channel>.nii.gz`, `labelsTr/<case>.nii.gz`, perhaps imagesTs.

nnU-Net needs every channel of every case; here a gap in the numbering is an absent modality. `imagesTs` is the test
side, with `labelsTs` where it exists. The first version's `modality` is read like the second's `channel_names`.

Source: https://github.com/MIC-DKFZ/nnUNet, documentation of the dataset format.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medprism.data.cohort import Split
from medprism.data.cohort_file import read_json
from medprism.data.layouts.found import Found, niftis, person_of, relative, stem
from medprism.data.modalities import canonical
from medprism.data.subject import Subject
from medprism.errors import UserError

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_SIDES: tuple[tuple[Split, str], ...] = (("training", "Tr"), ("test", "Ts"))


def matches(root: Path) -> bool:
    """Whether there is a `dataset.json` and numbered channels beside it, and it is not autoPET's."""
    cases = [m[1] for p in niftis(root / "imagesTr") if (m := _CHANNEL.fullmatch(stem(p)))]
    return (root / "dataset.json").is_file() and bool(cases) and not is_autopet(cases)


def is_autopet(cases: list[str]) -> bool:
    """Whether the cases are named like autoPET's, whose `dataset.json` calls both channels CT."""
    return all(re.match(r"(fdg|psma)_", case) for case in cases)


def read(root: Path) -> Found:
    """Cases with the modalities that `dataset.json` names."""
    path = root / "dataset.json"
    content = read_json(path)
    names = content.get("channel_names") or content.get("modality") if isinstance(content, dict) else None
    if not isinstance(names, dict):
        raise UserError(f"{path}: expected `channel_names` such as {{'0': 'T1', '1': 'FLAIR'}}, got {names!r}")
    return read_cases(root, channels(names, path), content)


def channels(names: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Channel number → canonical modality.

    Raises:
        UserError: If a name is unknown, or two channels are one modality.
    """
    found: dict[int, str] = {}
    for number, name in names.items():
        try:
            modality = canonical(str(name))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if modality in found.values():
            raise UserError(
                f"{path}: two channels are {modality}; give channel {number} ({name!r}) its own modality name"
            )
        found[int(number)] = modality
    return found


def read_cases(root: Path, names: dict[int, str], content: Mapping[str, Any]) -> Found:
    """Cases of `imagesTr` and `imagesTs` under given channel names; labels as `dataset.json` names them."""
    found = Found(str(content.get("name") or root.name), modalities=tuple(names[k] for k in sorted(names)))
    for side, suffix in _SIDES:
        labels = {stem(p): p for p in niftis(root / f"labels{suffix}")}
        images: dict[str, dict[str, str]] = {case: {} for case in labels}
        for path in niftis(root / f"images{suffix}"):
            match = _CHANNEL.fullmatch(stem(path))
            case = match[1] if match else stem(path)
            scans = images.setdefault(case, {})
            if match and int(match[2]) in names:
                scans[names[int(match[2])]] = relative(path, root)
            else:
                found.problem(
                    case, f"{path.name}: expected <case>_<channel> with channels {sorted(names)} of dataset.json"
                )
        for case in sorted(images):
            seg = relative(labels[case], root) if case in labels else None
            found.add(Subject(case, person_of(case), images[case], seg=seg), side)
    found.labels, found.regions = _labels(content.get("labels", {}), root / "dataset.json")
    return found


def _labels(declared: Any, path: Path) -> tuple[dict[str, int] | None, dict[str, list[int]]]:  # noqa: ANN401
    """Labels and regions: a name with one value is a label, one with a list is a region."""
    if not isinstance(declared, dict) or not declared:
        return None, {}
    try:
        if all(str(key).isdigit() for key in declared):  # the first version has value → name
            declared = {str(name): int(value) for value, name in declared.items()}
        labels = {str(name): int(value) for name, value in declared.items() if not isinstance(value, list)}
        regions = {str(name): [int(v) for v in value] for name, value in declared.items() if isinstance(value, list)}
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected `labels` as name: value, got {declared!r}") from None
    for value in sorted({v for values in regions.values() for v in values} - set(labels.values())):
        labels[f"label_{value}"] = value  # a value that occurs only as a part of regions
    return labels, regions
