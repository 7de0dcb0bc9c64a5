"""Open the scans and labels of one subject and say what is in them, and what is wrong."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medprism.data.labels import relabel
from medprism.data.modalities import KIND
from medprism.data.subject import Subject, without_volume
from medprism.errors import UserError
from medprism.io import Grid, Scan, check_informative, distance, read_label, read_scan, relation, require_same_space
from medprism.io.container import sound_affine, split_volume
from medprism.io.nifti import MM_PER_UNIT
from medprism.io.orientation import to_ras

_MOST = 1_000_000  # voxels that percentiles are taken of: enough for three digits, and quick on a large CT

_SHIFT = 5.0  # mm between the centres of one label on two grids, from which on it is reported


@dataclass(frozen=True)
class Facts:
    """What one scan is.

    Attributes:
        grid: Where its voxels are (RAS+).
        axes: Directions of the file's axes, such as `LPS`.
        quantiles: Smallest value; 1 %, 50 %, 99 % of the non-zero voxels; largest value. None when only headers were
            read.
        digest: Hash of the voxels, to find one scan under two names; empty when only headers were read.
    """

    grid: Grid
    axes: str
    quantiles: tuple[float, float, float, float, float] | None = None
    digest: str = ""


@dataclass
class Checked:
    """A subject and what was found in its files.

    Attributes:
        subject: Who.
        scans: Modality → facts, of those that could be read.
        values: Values in its label files (after the label map when the labels are declared).
        volumes: Value → volume in ml, in the subject's label.
        fatal: What makes the subject unusable, a line each.
        doubts: What looks odd but can be used.
    """

    subject: Subject
    scans: dict[str, Facts] = field(default_factory=dict)
    values: set[int] = field(default_factory=set)
    volumes: dict[int, float] = field(default_factory=dict)
    fatal: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Labels:
    """What the values of label files mean; `names` is None when that is still to be found out."""

    names: Mapping[str, int] | None
    label_map: Mapping[int, int] = field(default_factory=dict)


def check(subject: Subject, root: Path, labels: Labels, *, quick: bool = False) -> Checked:
    """Read a subject's files; never raises for what is wrong with them.

    Args:
        subject: Paths relative to `root`.
        root: Their folder.
        labels: What the label values may be. Undeclared ones are looked up even when `quick`.
        quick: Read headers only.
    """
    checked = Checked(subject)
    if not subject.images:
        checked.fatal.append("has no scan")
    for modality, relative in subject.images.items():
        try:
            checked.scans[modality] = _header(root / relative) if quick else _scan(root / relative)
        except UserError as error:
            checked.fatal.append(f"{modality}: {error}")
    _check_spaces(checked)
    if not quick:
        for modality, facts in checked.scans.items():
            checked.doubts.extend(f"{modality}: {doubt}" for doubt in _odd_unit(modality, facts))
    if not quick or labels.names is None:
        _check_labels(checked, root, labels)
    else:
        checked.fatal += [f"seg: expected the file {root / p}, it is missing" for p in _absent(subject, root)]
    return checked


def duplicates(subjects: Sequence[Checked]) -> list[tuple[str, str]]:
    """Scans that are voxel for voxel the same under two names: (where, where), such as `("a: t1n", "b: t1n")`."""
    first: dict[str, str] = {}
    found = []
    for checked in subjects:
        for modality, facts in checked.scans.items():
            where = f"{checked.subject.subject}: {modality}"
            other = first.setdefault(facts.digest, where) if facts.digest else where
            if other != where:
                found.append((other, where))
    return found


def _scan(path: Path) -> Facts:
    scan = read_scan(path)
    check_informative(scan)
    array = scan.array
    values = array[array != 0]
    step = max(1, values.size // _MOST)
    p1, p50, p99 = (float(q) for q in np.percentile(values[::step], (1, 50, 99)))
    digest = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    return Facts(scan.grid, _axes(scan.file_affine), (float(array.min()), p1, p50, p99, float(array.max())), digest)


def _header(path: Path) -> Facts:
    """Grid from the header alone: the voxels are not unpacked, so a truncated file is not noticed."""
    file, volume = split_volume(path)
    if not file.is_file():
        raise UserError(f"expected a scan, got no such file as {file}; check the path")
    try:
        image: Any = nib.load(file)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"expected a NIfTI file, {file} cannot be read: {error}; copy or download it again") from None
    volumes = int(np.prod(image.shape[3:]))
    if len(image.shape) < 3 or (volume is None and volumes > 1) or (volume is not None and volume >= volumes):
        raise UserError(f"expected one 3-D volume, got shape {image.shape} in {path}; name one as {file}#0")
    file_affine = sound_affine(image, file)
    # One byte stands for the voxels: only their number and order matter.
    empty, affine = to_ras(np.broadcast_to(np.uint8(0), image.shape[:3]), file_affine)
    affine[:3] *= MM_PER_UNIT.get(int(image.header["xyzt_units"]) & 7, 1.0)
    x, y, z = empty.shape
    return Facts(Grid((x, y, z), affine), _axes(file_affine))


def _axes(affine: NDArray[np.float64]) -> str:
    codes: tuple[str, str, str] = nib.orientations.aff2axcodes(affine)  # type: ignore[no-untyped-call]
    return "".join(codes)


def _check_spaces(checked: Checked) -> None:
    """Every two scans must share a world space: the first that does not is named with the distance."""
    scans = list(checked.scans.items())
    for i, (name, facts) in enumerate(scans):
        for other_name, other in scans[:i]:
            try:
                require_same_space(other.grid, facts.grid, name_a=other_name, name_b=name)
            except UserError as error:
                checked.fatal.append(str(error))
                return


def _odd_unit(modality: str, facts: Facts) -> list[str]:
    """Doubts about the unit, from ranges that no patient has."""
    if facts.quantiles is None:
        return []
    low, p1, _, p99, high = facts.quantiles
    kind = KIND[modality]
    if kind == "ct" and (low >= 0 or high < 10):
        return [f"expected HU, with air near -1000; got {low:g} to {high:g}; was the rescale intercept lost?"]
    if kind == "pet" and p99 > 100:
        return [f"expected SUV, few voxels above 20; got 99 % at {p99:g}; counts or Bq/ml must be converted"]
    if kind in ("pet", "nac") and p1 < 0:
        return [f"expected activity from 0 on; got 1 % at {p1:g}"]
    return []


def _check_labels(checked: Checked, root: Path, labels: Labels) -> None:
    subject = checked.subject
    files = {**subject.segs}
    if subject.seg is not None and subject.seg not in files.values():
        files[""] = subject.seg
    centres: dict[str, NDArray[np.float64]] = {}
    for modality, relative in files.items():
        where = f"seg.{modality}" if modality else "seg"
        try:
            label = read_label(root / relative)
            values = (
                label.array if labels.names is None else relabel(label.array, labels.names, labels.label_map, where)
            )
        except UserError as error:
            checked.fatal.append(str(error) if str(error).startswith(where) else f"{where}: {error}")
            continue
        _check_label_grid(checked, label, modality, where)
        found, counts = np.unique(values, return_counts=True)
        checked.values |= {int(v) for v in found}
        if relative == subject.seg:
            voxel = float(np.prod(label.grid.spacing)) / 1000
            checked.volumes = {int(v): int(n) * voxel for v, n in zip(found, counts, strict=True) if v}
        if values.any():
            centres[where] = label.grid.world(np.argwhere(values).mean(axis=0))
    _check_centres(checked, centres)


def _check_centres(checked: Checked, centres: Mapping[str, NDArray[np.float64]]) -> None:
    """One lesion drawn on several grids must lie at one place: else the scans, or the drawings, are shifted."""
    first, *others = centres or [""]
    for where in others:
        apart = float(np.linalg.norm(centres[first] - centres[where]))
        if apart > _SHIFT:
            checked.doubts.append(
                f"{first} and {where} have their centres {apart:.0f} mm apart; look whether the scans are registered"
            )


def _check_label_grid(checked: Checked, label: Scan, modality: str, where: str) -> None:
    grids = {m: f.grid for m, f in checked.scans.items() if not modality or m == modality}
    if not grids:
        return
    found = {m: relation(grid, label.grid) for m, grid in grids.items()}
    if set(found.values()) == {"apart"}:
        nearest = min(grids, key=lambda m: distance(grids[m], label.grid))
        checked.fatal.append(
            f"{where} is not in the world space of the scans: {distance(grids[nearest], label.grid):.0f} mm from "
            f"{nearest}; draw or export it on the grid of a scan"
        )
    elif "same_grid" not in found.values():
        checked.doubts.append(f"{where} is on the grid of no scan; it will be resampled")


def _absent(subject: Subject, root: Path) -> list[str]:
    labels = dict.fromkeys((*subject.segs.values(), *(() if subject.seg is None else (subject.seg,))))
    return [path for path in labels if not without_volume(root / path).is_file()]
