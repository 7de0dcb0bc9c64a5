"""A label map of one subject, and the files that it is kept in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medprism.inference.components import voxel_mm3
from medprism.io.atomic import refuse_existing, whole_file
from medprism.io.nifti import Scan, save_like, sidecar_path


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of one subject's voxels.

    Attributes:
        array: (X, Y, Z) uint8 or uint16 on `reference.grid`, in RAS+ order; after the rule for small regions, if asked.
        raw: the same before that rule; None if it was not asked for.
        probabilities: label -> (X, Y, Z) float32, how likely it is; None if not asked for. That of a region is the sum
            over its labels, that of the background what is left to 1.
        reference: the given scan whose grid it is on.
        regions: name -> the label values that make it up.
        sidecar: what is known about it, plain JSON.
    """

    array: NDArray[Any]
    raw: NDArray[Any] | None
    probabilities: Mapping[str, NDArray[np.float32]] | None
    reference: Scan
    regions: Mapping[str, Sequence[int]]
    sidecar: Mapping[str, Any]

    def mask(self, region: str) -> NDArray[np.bool_]:
        """Where a region is: (X, Y, Z)."""
        return np.isin(self.array, self.regions[region])

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each region."""
        return _volumes(self.array, self.regions, self.reference)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the map, its JSON sidecar and, if there are any, the raw map and the probabilities beside it.

        The map itself comes last: one that is there has all its files, and a sidecar without one tells of a run that
        was stopped.

        Args:
            path: `.nii` or `.nii.gz`.
            force: overwrite.

        Returns:
            `path`.

        Raises:
            UserError: a file exists without `force`, or the system refused to write.
        """
        path = Path(path)
        others = files_beside(path, list(self.probabilities or ()), raw=self.raw is not None)
        for output in (path, *others):
            refuse_existing(output, force=force)
            refuse_existing(sidecar_path(output), force=force)
        with whole_file(sidecar_path(path)) as file:
            file.write((json.dumps(dict(self.sidecar), indent=2) + "\n").encode())
        for place, (name, values) in zip(others, (self.probabilities or {}).items(), strict=False):
            told = {**self._plain(), "Content": "probability", "Label": name, "Range": [0.0, 1.0]}
            save_like(values, self.reference, place, kind="image", force=force, sidecar=told)
        if self.raw is not None:
            volumes = _volumes(self.raw, self.regions, self.reference)
            told = {"VolumesMl": volumes, **self._plain(), "Small": None}
            save_like(self.raw, self.reference, others[-1], kind="label", force=force, sidecar=told)
        return save_like(self.array, self.reference, path, kind="label", force=force)

    def _plain(self) -> dict[str, Any]:
        """The sidecar without what is true of the map alone."""
        return {key: value for key, value in self.sidecar.items() if key not in ("VolumesMl", "Small")}


def files_beside(path: Path, labels: Iterable[str], *, raw: bool) -> list[Path]:
    """The files that come with a label map: a probability for each of the labels, then the raw map.

    `seg.nii.gz` has `seg_ET_probability.nii.gz` and `seg_raw.nii.gz`; by BIDS `…_desc-model_dseg.nii.gz` has
    `…_label-ET_desc-model_probseg.nii.gz` and `…_desc-raw_dseg.nii.gz`.

    Raises:
        UserError: the path does not end in .nii or .nii.gz.
    """
    stem = sidecar_path(path).stem
    suffix = path.name[len(stem) :]
    visit = stem.removesuffix("_desc-model_dseg")
    likely, unruled = ("{}_label-{}_desc-model_probseg", "{}_desc-raw_dseg")
    if visit == stem:
        likely, unruled = ("{}_{}_probability", "{}_raw")
    words = [re.sub(r"[^A-Za-z0-9]+", "", name) for name in labels]
    if len(set(words)) < len(words) or "" in words:  # names that differ by signs alone
        words = [f"{word}{number}" for number, word in enumerate(words, start=1)]
    names = [likely.format(visit, word) for word in words] + ([unruled.format(visit)] if raw else [])
    return [path.with_name(name + suffix) for name in names]


def _volumes(array: NDArray[Any], regions: Mapping[str, Sequence[int]], reference: Scan) -> dict[str, float]:
    voxel_ml = voxel_mm3(reference.grid) / 1000
    return {name: round(float(np.isin(array, values).sum()) * voxel_ml, 3) for name, values in regions.items()}
