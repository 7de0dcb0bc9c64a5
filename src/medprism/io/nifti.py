"""NIfTI files in and out: arrays in RAS+ order inside, the file's own geometry bit for bit outside."""

import gzip
import json
import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.io.atomic import refuse_existing, whole_file
from medprism.io.container import Header, Image, one_volume, open_nifti, sound_affine, split_volume
from medprism.io.grid import Grid
from medprism.io.orientation import from_ras, to_ras

# NIfTI's spatial unit is the lowest three bits of xyzt_units: 1 metre, 2 mm, 3 µm; unknown is taken for mm.
MM_PER_UNIT = {1: 1000.0, 3: 0.001}


@dataclass(frozen=True, eq=False)
class Scan:
    """One volume and where it came from.

    Attributes:
        array: (X, Y, Z) in RAS+ order: float32, or uint8/uint16 for labels.
        grid: Where its voxels are, in mm.
        path: The file, or None if made in memory.
        header: nibabel header of the file, untouched.
        file_affine: (4, 4) voxel of the file -> world, in the file's unit.
        file_shape: Shape in the file, more than three numbers if it may hold several volumes.
    """

    array: NDArray[Any]
    grid: Grid
    path: Path | None
    header: Header
    file_affine: NDArray[np.float64]
    file_shape: tuple[int, ...]


def read_scan(path: str | Path, *, finite: bool = True) -> Scan:
    """Read an image as float32, scaled as the header says.

    Args:
        path: `.nii` or `.nii.gz`; `file.nii.gz#2` is the third volume of a 4-D file.
        finite: Refuse NaN and infinite values.

    Raises:
        UserError: Missing, damaged, not a NIfTI, not one volume of numbers, without a sound affine, or not finite.
    """
    file, volume = split_volume(path)
    image = open_nifti(file)
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is told below
        array = one_volume(image, file, volume).astype(np.float32)
    if finite and not (good := np.isfinite(array)).all():
        msg = (
            f"expected finite values, got NaN or infinity in {(~good).sum()} of {good.size} voxels of {path}; "
            f"replace them, for example by the background value"
        )
        raise UserError(msg)
    return _scan(array, image, file)


def read_label(path: str | Path) -> Scan:
    """Read a label map as uint8, or uint16 if a label is above 255. Whole numbers stored as floats are accepted.

    Args:
        path: As for `read_scan`.

    Raises:
        UserError: As `read_scan`, or values that are not whole numbers from 0 to 65535.
    """
    file, volume = split_volume(path)
    image = open_nifti(file)
    stored = one_volume(image, file, volume)
    low, high = stored.min(), stored.max()
    if not (low >= 0 and high <= 65535 and (stored.dtype.kind in "iu" or np.array_equal(stored, np.round(stored)))):
        msg = (
            f"expected labels, whole numbers from 0 to 65535, got values from {low:g} to {high:g} in {path}; "
            f"is it an image, or was it resampled with interpolation?"
        )
        raise UserError(msg)
    return _scan(stored.astype(_label_type(stored)), image, file)


def check_informative(scan: Scan) -> None:
    """Refuse an image that is the same everywhere: it stands for a scan that is not there.

    Raises:
        UserError: All voxels are equal.
    """
    low, high = scan.array.min(), scan.array.max()
    if low == high:
        msg = (
            f"expected an image, got {low:g} in every voxel of {scan.path or 'the scan'}; "
            f"leave an absent scan out instead of filling it"
        )
        raise UserError(msg)


def new_scan(array: NDArray[Any], grid: Grid) -> Scan:
    """A scan made in memory, with a header (sform and qform in scanner coordinates, mm) for `save_like`.

    Raises:
        ValueError: The array is not on the grid.
    """
    if array.shape != grid.shape:
        msg = f"expected an array of shape {grid.shape}, got {array.shape}"
        raise ValueError(msg)
    header: Header = nib.Nifti1Header()  # type: ignore[no-untyped-call]
    header.set_data_shape(grid.shape)
    header.set_zooms(grid.spacing)
    header.set_xyzt_units("mm", "sec")
    header.set_sform(grid.affine, code="scanner")
    # A quaternion cannot hold shear; a sheared grid has only an sform.
    axes = grid.affine[:3, :3] / np.array(grid.spacing)
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-5):
        header.set_qform(grid.affine, code="scanner")
    return Scan(array, grid, None, header, np.array(grid.affine), grid.shape)


def save_like(
    array: NDArray[Any],
    reference: Scan,
    path: str | Path,
    *,
    kind: Literal["image", "label"],
    force: bool = False,
    sidecar: dict[str, Any] | None = None,
) -> Path:
    """Write a volume with the geometry of a reference file: the only way scans leave medprism.

    Shape, affine, sform, qform, their codes, voxel sizes and units are the reference's, bit for bit. What describes
    the reference's own values (scaling, display range, intent, description, extensions) is reset. A reference of
    several volumes gives a 3-D file on its grid. The same input gives the same bytes.

    Args:
        array: (X, Y, Z) on `reference.grid`, thus in RAS+ order.
        reference: The scan to resemble.
        path: `.nii` or `.nii.gz`.
        kind: `image` is written as float32, `label` as uint8, or uint16 if a label is above 255.
        force: Overwrite.
        sidecar: Written as JSON beside the file, `.nii.gz` replaced by `.json`.

    Returns:
        The path written.

    Raises:
        UserError: Wrong suffix, the file or its sidecar exists without `force`, or the system refused to write.
        ValueError: The array is not on the grid, not finite, or not labels from 0 to 65535.
    """
    path = Path(path)
    beside = sidecar_path(path)
    for output in (path, beside) if sidecar is not None else (path,):
        refuse_existing(output, force=force)
    data = _for_file(array, reference, kind)
    header = _header_like(reference, data, kind)
    image_class: Image = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # Without an affine of its own the image leaves sform and qform as they are in the header.
    content = image_class(data, None, header).to_bytes()
    note = "" if sidecar is None else json.dumps(sidecar, indent=2) + "\n"
    with ExitStack() as both:
        # The sidecar is whole on disk before the image is moved into place, so no disk fills up between the two.
        if note:
            text = both.enter_context(whole_file(beside))
            text.write(note.encode())
            text.flush()
        file = both.enter_context(whole_file(path))
        if path.suffix == ".gz":
            # No name and no time in gzip's header: the same scan gives the same bytes.
            with gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
                packed.write(content)
        else:
            file.write(content)
    return path


def sidecar_path(path: Path) -> Path:
    """The JSON file that belongs to a NIfTI file.

    Raises:
        UserError: The name does not end in .nii or .nii.gz.
    """
    match = re.fullmatch(r"(.+)\.nii(\.gz)?", path.name)
    if match is None:
        msg = f"expected a file name ending in .nii or .nii.gz, got {path}; rename it"
        raise UserError(msg)
    return path.with_name(match[1] + ".json")


def _scan(array: NDArray[Any], image: Image, file: Path) -> Scan:
    """Turn a volume to RAS+ order and give it its grid."""
    file_affine = sound_affine(image, file)
    array, affine = to_ras(array, file_affine)
    affine[:3] *= MM_PER_UNIT.get(int(image.header["xyzt_units"]) & 7, 1.0)
    x, y, z = array.shape
    return Scan(array, Grid((x, y, z), affine), file, image.header.copy(), file_affine, tuple(image.shape))


def _for_file(array: NDArray[Any], reference: Scan, kind: Literal["image", "label"]) -> NDArray[Any]:
    """Check an array on the reference's grid, and turn it into the file's axis order, shape and type."""
    if array.shape != reference.grid.shape:
        msg = f"expected an array of shape {reference.grid.shape}, got {array.shape}"
        raise ValueError(msg)
    if kind == "label":
        if array.dtype.kind not in "biu" or array.min() < 0 or array.max() > 65535:
            msg = f"expected labels from 0 to 65535, got {array.dtype} from {array.min()} to {array.max()}"
            raise ValueError(msg)
        data = array.astype(_label_type(array))
    else:
        data = array.astype(np.float32)
        if not np.isfinite(data).all():
            msg = "expected finite values, got NaN or infinity"
            raise ValueError(msg)
    data = from_ras(data, reference.file_affine)
    # (X, Y, Z, 1) is kept; of several volumes one is written.
    single = math.prod(reference.file_shape[3:]) == 1
    return data.reshape(reference.file_shape) if single else data


def _header_like(reference: Scan, data: NDArray[Any], kind: Literal["image", "label"]) -> Header:
    """The reference's header with everything that describes its values, not its geometry, reset."""
    header = reference.header.copy()
    header.extensions.clear()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_slope_inter(1.0, 0.0)
    header.set_intent("label" if kind == "label" else "none")
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = b"medprism"
    header["aux_file"] = b""
    return header


def _label_type(array: NDArray[Any]) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if array.max(initial=0) <= 255 else np.uint16
