"""Small random NIfTI files."""

import zlib

import nibabel as nib
import numpy as np

SHAPE = (6, 7, 8)


def scan(path, array=None, *, spacing=2.0, origin=(0, 0, 0), flip=False):
    """Write an image (random if no array is given) whose first voxel is at `origin`; `flip` stores the first axis L."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(zlib.crc32(path.as_posix().encode())).normal(100, 20, SHAPE).astype(np.float32)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    if flip:
        affine[0, 3] += spacing * (array.shape[0] - 1)
        affine[0, 0] *= -1
        array = array[::-1]
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def label(path, *values, **geometry):
    """Write a label with one voxel of each value."""
    array = np.zeros(geometry.pop("shape", SHAPE), np.uint8)
    array.flat[: len(values)] = values
    return scan(path, array, **geometry)
