"""NIfTI files of every geometry, written by nibabel for the tests."""

from itertools import permutations, product

import nibabel as nib
import numpy as np

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
SHAPE = (3, 4, 5)


def affine_of(order=(0, 1, 2), signs=(1, 1, 1), *, spacing=(0.9765625, 1.25, 3.27), oblique=False):
    """Voxel -> world of an orientation, turned by 0.3 rad about a skew axis if oblique."""
    cross = np.cross(np.eye(3), np.array([1.0, 2.0, -1.0]) / np.sqrt(6))
    turn = np.eye(3) + np.sin(0.3) * cross + (1 - np.cos(0.3)) * cross @ cross if oblique else np.eye(3)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, list(order)] * signs * np.array(spacing)
    affine[:3, 3] = (-90.3, 126.7, -72.1)
    return affine


def write(path, array, affine, *, codes=(1, 1), header=None, unit="mm", kind=nib.Nifti1Image, scaling=None):
    """Write an array with these (qform, sform) codes; a code of 0 leaves that form out, as converters do."""
    image = kind(array, None, header)
    image.header.set_zooms(np.append(np.linalg.norm(affine[:3, :3], axis=0), [2.0] * (array.ndim - 3)))
    image.header.set_xyzt_units(unit, "sec")
    if scaling:
        image.header.set_slope_inter(*scaling)
    if codes[0]:
        image.header.set_qform(affine, codes[0])
    if codes[1]:
        image.header.set_sform(affine, codes[1])
    nib.save(image, path)
    return path


def numbered(shape=SHAPE, dtype=np.float32):
    """An array in which no two voxels are equal."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)
