"""What a NIfTI file holds, checked: wholly there, one volume of real numbers, and an affine that says where."""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.io.grid import affine_defect

# nibabel is only partly typed.
Image: TypeAlias = Any
Header: TypeAlias = Any

# Where the magic of a NIfTI with header and voxels in one file stands. A header alone ("ni1") has the same layout, and
# its own bytes would be taken for voxels.
MAGIC: tuple[tuple[Image, slice, bytes], ...] = (
    (nib.Nifti1Image, slice(344, 348), b"n+1\0"),
    (nib.Nifti2Image, slice(4, 8), b"n+2\0"),
)


def split_volume(path: str | Path) -> tuple[Path, int | None]:
    """Split `file.nii.gz#2` into the file and the number of the volume, None if none is named."""
    match = re.fullmatch(r"(.+)#(\d+)", str(path))
    if match is None or Path(path).exists():
        return Path(path), None
    return Path(match[1]), int(match[2])


def open_nifti(file: Path) -> Image:
    """The nibabel image of a NIfTI-1 or NIfTI-2 file, in memory, its checksum verified if it is compressed.

    Raises:
        UserError: Missing, a folder, unreadable, truncated, damaged or not a NIfTI.
    """
    raw = _content(file)
    kind = next((kind for kind, place, magic in MAGIC if raw[place] == magic), None)
    if kind is None:
        msg = f"expected a NIfTI file (.nii or .nii.gz), got something else, {file}; convert DICOM with dcm2niix"
        raise UserError(msg)
    try:
        image = kind.from_bytes(raw)
        needed = image.dataobj.offset + image.get_data_dtype().itemsize * math.prod(image.shape)
    except (ImageFileError, HeaderDataError, ValueError, OSError) as error:
        msg = f"expected a sound NIfTI header, got '{error}' in {file}; convert it again from its source"
        raise UserError(msg) from error
    if len(raw) < needed:
        msg = f"expected {needed} bytes of header and voxels, got {len(raw)}, in {file}; copy or download it again"
        raise UserError(msg)
    return image


def one_volume(image: Image, file: Path, volume: int | None) -> NDArray[Any]:
    """One volume (X, Y, Z) in the file's axis order, of the stored type or scaled in float64.

    Args:
        image: From `open_nifti`.
        file: For messages.
        volume: Which one, counted over all axes after the third; None if the file should hold but one.

    Raises:
        UserError: Not 3-D, not real numbers, several volumes and none named, or no such volume.
    """
    shape = image.shape
    if len(shape) < 3 or min(shape) < 1:
        msg = f"expected a 3-D volume, got shape {shape} in {file}; medprism works on volumes, not slices"
        raise UserError(msg)
    if image.get_data_dtype().kind not in "iuf":
        msg = f"expected one real number per voxel, got {image.get_data_dtype()} in {file}; split it into real volumes"
        raise UserError(msg)
    count = math.prod(shape[3:])
    if volume is None and count > 1:
        msg = f"expected one volume, got {count} in {file}; name one of {file}#0 … {file}#{count - 1}"
        raise UserError(msg)
    if volume is not None and volume >= count:
        msg = f"expected a volume from #0 to #{count - 1}, got #{volume} of {file}"
        raise UserError(msg)
    # Fortran order is the order of the volumes in the file.
    index = (int(i) for i in np.unravel_index(volume or 0, shape[3:] or (1,), order="F")[: len(shape) - 3])
    return np.asarray(image.dataobj[(slice(None), slice(None), slice(None), *index)])


def sound_affine(image: Image, file: Path) -> NDArray[np.float64]:
    """(4, 4) voxel of the file -> world, in the file's own unit: the sform if its code is set, else the qform.

    Raises:
        UserError: Neither code is set, or the affine is singular or not finite.
    """
    if not (image.header["sform_code"] or image.header["qform_code"]):
        msg = (
            f"expected an affine, got none (sform and qform codes are both 0: left and right are unknown) in {file}; "
            f"convert it again from its source, or set the sform if you know it"
        )
        raise UserError(msg)
    affine = np.array(image.affine, dtype=np.float64)
    if defect := affine_defect(affine):
        msg = f"expected an invertible affine, got one {defect} in {file}; convert it again from its source"
        raise UserError(msg)
    return affine


def _content(file: Path) -> bytes:
    """All bytes of a file, unpacked if they are gzip's, whatever the name says."""
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError as error:
        msg = f"expected a scan, got no such file as {file}; check the path"
        raise UserError(msg) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"expected a whole gzip file, got a truncated or damaged one, {file}; copy or download it again"
        raise UserError(msg) from error
    except OSError as error:
        if file.is_dir():
            msg = f"expected a .nii or .nii.gz file, got the folder {file}; convert DICOM with `dcm2niix -z y {file}`"
        else:
            msg = f"expected to read {file}, got '{error.strerror or error}' from the system; check the file's rights"
        raise UserError(msg) from error
