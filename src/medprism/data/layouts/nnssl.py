"""nnssl's `pretrain_data.json`: a collection of data sets > subjects > sessions > images, each with its modality.

nnssl treats every image by itself; here the images of one session are one subject's modalities. Person = data set and
subject, site = data set. Image paths may begin with a variable such as `$nnssl_raw`: it is taken from the environment,
else `$nnssl_raw` is the folder above the one that holds the file.

Source: https://github.com/MIC-DKFZ/nnssl, documentation of the dataset format.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medprism.data.cohort_file import read_json
from medprism.data.layouts.found import Found
from medprism.data.modalities import lookup
from medprism.data.subject import Subject
from medprism.errors import UserError

FILE = "pretrain_data.json"


def matches(root: Path) -> bool:
    """Whether the folder holds a `pretrain_data.json`."""
    return (root / FILE).is_file()


def read(root: Path) -> Found:
    """Sessions that have an image of a known modality; nnssl has no labels."""
    path = root / FILE
    content = read_json(path)
    unknown: Counter[str] = Counter()
    repeated = 0
    try:
        found = Found(str(content.get("collection_name") or root.name))
        many = len(content["datasets"]) > 1
        for site, person, session, entries in _sessions(content):
            images: dict[str, str] = {}
            for entry in entries:
                modality = lookup(entry["modality"])
                if modality is None:
                    unknown[entry["modality"]] += 1
                elif modality in images:
                    repeated += 1
                else:
                    images[modality] = _located(entry["image_path"], root)
            if images:
                prefix = f"{site}_" if many else ""
                found.add(Subject(f"{prefix}{person}_{session}", f"{prefix}{person}", images, site=site))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected datasets > subjects > sessions > images, got {error!r} amiss") from None
    if unknown:
        names = ", ".join(f"{name} {count}" for name, count in unknown.most_common())
        found.notes.append(f"images left out as their modality is not known: {names}")
    if repeated:
        found.notes.append(f"{repeated} images left out: the first of a modality in a session is taken")
    return found


def _sessions(content: dict[str, Any]) -> Iterator[tuple[str, str, str, list[dict[str, Any]]]]:
    """Data set, subject, session, images."""
    for index, dataset in content["datasets"].items():
        for person, subject in dataset["subjects"].items():
            for session, held in subject["sessions"].items():
                yield str(dataset.get("name") or index), person, session, held["images"]


def _located(path: str, root: Path) -> str:
    """Path relative to the folder of the file, or absolute."""
    if not path.startswith("$"):
        return path
    variable, _, rest = path[1:].partition("/")
    if variable not in os.environ and variable != "nnssl_raw":
        raise UserError(
            f"{root / FILE}: expected the environment variable {variable} for {path!r}, it is not set; set it"
        )
    base = Path(os.environ[variable]) if variable in os.environ else root.parent
    return Path(os.path.relpath(base / rest, root)).as_posix()
