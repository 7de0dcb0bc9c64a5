"""The slices that a report shows, kept while a subject is in memory and thinned out to three subjects at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medprism.io.atomic import whole_file

if TYPE_CHECKING:
    from medprism.data.cache import Entry

SLICES = "slices.npz"
PLANES = ("axial", "coronal", "sagittal")  # cut along Z, Y, X


class SliceStore:
    """Slices of every subject on disk, of which `finish` keeps the best, the median and the worst subject.

    Args:
        folder: empty and temporary; several processes may keep subjects in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, subject: str) -> Path:
        # Any name is a file's then, the same for whoever writes and reads.
        return self.folder / f"{hashlib.sha256(subject.encode()).hexdigest()[:16]}.npz"

    def keep(
        self,
        entry: Entry,
        images: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        outputs: Mapping[int, NDArray[np.float32]],
        labels: Mapping[str, NDArray[np.uint8] | NDArray[np.uint16]] | None = None,
    ) -> None:
        """Cut a subject in three planes through the middle of its label, or else of its foreground.

        Args:
            entry: the subject.
            images: (M, X, Y, Z) its scans.
            foreground: (M, X, Y, Z) theirs.
            outputs: by source index, what the model wrote, (M, X, Y, Z).
            labels: by any name, label maps (X, Y, Z).
        """
        centre = _centre(entry.label(), np.asarray(foreground.any(axis=0)))
        spacing = np.linalg.norm(entry.affine[:3, :3], axis=0)
        arrays: dict[str, NDArray[Any]] = {}
        for axis, plane in zip((2, 1, 0), PLANES, strict=True):
            arrays[f"{plane}/images"] = _cut(images, axis, centre)
            arrays[f"{plane}/foreground"] = _cut(foreground, axis, centre)
            for source, output in outputs.items():
                arrays[f"{plane}/generated/{source}"] = _cut(output, axis, centre)
            for name, labelled in (labels or {}).items():
                arrays[f"{plane}/labels/{name}"] = np.take(labelled, centre[axis], axis=axis)
        about = {
            "subject": entry.subject,
            "present": [bool(here) for here in entry.present],
            "cut_out": [not image[~mask].any() for image, mask in zip(images, foreground, strict=True)],
            "spacing": spacing.tolist(),
        }
        np.savez(self._file(entry.subject), about=json.dumps(about), **arrays)  # type: ignore[arg-type]

    def finish(self, ranking: Mapping[str, float], path: Path, *, score: str) -> Path | None:
        """Write the slices of up to three subjects into one file.

        Keys are `<best|median|worst>/<plane>/images` (M, A, B) float16, `…/foreground` (M, A, B) bool,
        `…/generated/<source index>` (M, A, B) float16, `…/labels/<name>` (A, B) integers, and `about`, JSON: names,
        spacing in mm, which scans are there and which are cut out (zero outside their foreground). Of two subjects
        there is no median; a single one is it.

        Args:
            ranking: score of each subject, the higher the better.
            path: file to write.
            score: what the ranking is by, in words.

        Returns:
            The path, or None where no subject has a score.
        """
        order = sorted((value, subject) for subject, value in ranking.items() if np.isfinite(value))
        if not order:
            return None
        chosen = {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}
        chosen = {rank: chosen[rank] for rank in _ranks(len(order))}
        arrays: dict[str, NDArray[Any]] = {}
        about: dict[str, object] = {"score": score, "subjects": {}}
        subjects: dict[str, object] = {}
        for rank, (value, subject) in chosen.items():
            with np.load(self._file(subject), allow_pickle=False) as stored:
                subjects[rank] = {**json.loads(str(stored["about"])), "value": value}
                arrays.update({f"{rank}/{name}": stored[name] for name in stored.files if name != "about"})
        about["subjects"] = subjects
        with whole_file(path) as file:
            np.savez_compressed(file, about=json.dumps(about), **arrays)  # type: ignore[arg-type]
        return path


def _ranks(count: int) -> Sequence[str]:
    return {1: ("median",), 2: ("best", "worst")}.get(count, ("best", "median", "worst"))


def _centre(label: NDArray[np.integer] | None, foreground: NDArray[np.bool_]) -> tuple[int, ...]:
    """A voxel to cut through: on each axis the slice with most label, or the middle of the foreground."""
    if label is not None and label.any():
        sums = [np.count_nonzero(label, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
        return tuple(int(np.argmax(area)) for area in sums)
    middles = [np.flatnonzero(foreground.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(int(m[len(m) // 2]) if m.size else n // 2 for m, n in zip(middles, foreground.shape, strict=True))


def _cut(volumes: NDArray[Any], axis: int, centre: tuple[int, ...]) -> NDArray[Any]:
    slices: NDArray[Any] = np.take(volumes, centre[axis], axis=axis + 1)
    return slices if slices.dtype == np.bool_ else slices.astype(np.float16)
