"""Bad input: one clear line, never a traceback from within nibabel, never silently wrong voxels."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from medprism.errors import UserError
from medprism.io import read_scan
from tests.io.make import SHAPE, affine_of, numbered, write


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        read_scan(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path).split("#")[0] in line


def test_missing_file(tmp_path):
    refused(tmp_path / "none.nii.gz", "no such file")


def test_folder(tmp_path):
    refused(tmp_path, r"got the folder .*`dcm2niix -z y")


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_truncated_gzip(tmp_path, keep):
    array = np.random.default_rng(0).normal(size=(20, 20, 20))
    file = write(tmp_path / "in.nii.gz", array, affine_of())
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * keep)])
    refused(file, "truncated or damaged")


def test_gzip_without_its_last_byte(tmp_path):
    # All voxels are there, but the checksum that vouches for them is not.
    file = write(tmp_path / "in.nii.gz", numbered(), affine_of())
    file.write_bytes(file.read_bytes()[:-1])
    refused(file, "truncated or damaged")


def test_damaged_gzip_is_never_read_as_other_voxels(tmp_path):
    file = write(tmp_path / "in.nii.gz", np.random.default_rng(0).normal(size=(8, 8, 8)), affine_of())
    raw, whole = file.read_bytes(), read_scan(file).array
    for position in np.random.default_rng(1).integers(0, len(raw), 60):
        file.write_bytes(raw[:position] + bytes([raw[position] ^ 0x55]) + raw[position + 1 :])
        try:
            np.testing.assert_array_equal(read_scan(file).array, whole)
        except UserError:
            continue


@pytest.mark.parametrize("size", [400, 1000, -1])
def test_truncated_without_compression(tmp_path, size):
    file = write(tmp_path / "in.nii", np.zeros((10, 10, 10)), affine_of())
    file.write_bytes(file.read_bytes()[:size])
    refused(file, "expected 8352 bytes of header and voxels")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(1000), b"\x89PNG" + bytes(1000)])
def test_not_a_nifti(tmp_path, content):
    for name, data in (("a.nii", content), ("b.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, "expected a NIfTI file")


def test_header_without_its_image_file(tmp_path):
    nib.save(nib.Nifti1Pair(numbered(), affine_of()), tmp_path / "pair.img")
    refused(tmp_path / "pair.hdr", "expected a NIfTI file")


def test_random_headers_never_raise_anything_else(tmp_path):
    file = write(tmp_path / "in.nii", numbered(), affine_of())
    raw = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = raw.copy()
        for position in rng.integers(0, 348, 3):
            broken[position] = rng.integers(256)
        file.write_bytes(broken)
        try:
            scan = read_scan(file)
        except UserError:
            continue
        assert scan.array.shape == scan.grid.shape


def test_slice(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5), np.float32), np.eye(4))
    nib.save(image, tmp_path / "in.nii")
    refused(tmp_path / "in.nii", r"expected a 3-D volume, got shape \(4, 5\)")


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_not_numbers(tmp_path, dtype):
    refused(write(tmp_path / "in.nii", np.zeros(SHAPE, dtype), affine_of()), "one real number per voxel")


def test_4d_without_a_volume_and_with_a_wrong_one(tmp_path):
    file = write(tmp_path / "in.nii", np.zeros((*SHAPE, 4), np.float32), affine_of())
    refused(file, r"got 4 in .*; name one of .*in\.nii#0 … .*in\.nii#3")
    refused(f"{file}#4", r"from #0 to #3, got #4")


def test_absent_affine(tmp_path):
    refused(write(tmp_path / "in.nii", numbered(), affine_of(), codes=(0, 0)), "codes are both 0")


@pytest.mark.parametrize("column", [(0, 0, 0), (np.nan, 0, 0), (0, 2, 0)])
def test_singular_affine(tmp_path, column):
    header = nib.Nifti1Header()
    affine = np.diag([1, 2, 3, 1.0])
    affine[:3, 0] = column
    header.set_data_shape(SHAPE)
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    header["sform_code"] = 1
    nib.save(nib.Nifti1Image(numbered(), None, header), tmp_path / "in.nii")
    refused(tmp_path / "in.nii", "expected an invertible affine, got one")


def test_unreadable_file(tmp_path, monkeypatch):
    file = write(tmp_path / "in.nii", numbered(), affine_of())

    def no(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(file), "read_bytes", no)
    refused(file, "got 'Permission denied' from the system")
