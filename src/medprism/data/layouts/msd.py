"""Medical Segmentation Decathlon: `dataset.json` with lists of files, the modalities as volumes of a 4-D file.

`modality` numbers the volumes; modality k of a 4-D file is `file.nii.gz#k`. The challenge's test has no labels.

Source: http://medicaldecathlon.com, and MONAI's `load_decathlon_datalist`.
"""

import re
from pathlib import Path

from medprism.data.cohort_file import read_json
from medprism.data.layouts.found import Found, niftis, person_of, stem
from medprism.data.layouts.nnunet import channels
from medprism.data.subject import Subject
from medprism.errors import UserError


def matches(root: Path) -> bool:
    """Whether `dataset.json` numbers modalities and the files beside it are not numbered by channel (nnU-Net's way)."""
    path = root / "dataset.json"
    if not path.is_file() or not any(not re.search(r"_\d{4}$", stem(p)) for p in niftis(root / "imagesTr")):
        return False
    content = read_json(path)
    return isinstance(content, dict) and "modality" in content and "training" in content


def read(root: Path) -> Found:
    """Subjects as `dataset.json` lists them."""
    path = root / "dataset.json"
    content = read_json(path)
    try:
        volumes = channels(content["modality"], path)
        training = [(str(item["image"]), str(item["label"])) for item in content["training"]]
        test = [str(item["image"] if isinstance(item, dict) else item) for item in content.get("test", [])]
        labels = {str(name): int(value) for value, name in content.get("labels", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected `modality`, `training` and `labels` of the Decathlon, got {error!r}"
        ) from None
    found = Found(str(content.get("name") or root.name), modalities=tuple(volumes[k] for k in sorted(volumes)))
    found.labels = labels or None
    for image, label in training:
        found.add(_subject(image, volumes, _tidy(label)))
    for image in test:
        found.add(_subject(image, volumes, None), "test")
    return found


def _subject(image: str, volumes: dict[int, str], label: str | None) -> Subject:
    path = _tidy(image)
    name = stem(Path(path))
    images = {m: f"{path}#{k}" if len(volumes) > 1 else path for k, m in volumes.items()}
    return Subject(name, person_of(name), images, seg=label)


def _tidy(path: str) -> str:
    return Path(path).as_posix()  # the lists write ./imagesTr/…
