"""Reading to RAS+ and writing back: geometry bit for bit, over every orientation and kind of header."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medprism.errors import UserError
from medprism.io import Grid, Scan, check_informative, new_scan, read_label, read_scan, relation, save_like
from tests.io.make import ORIENTATIONS, SHAPE, affine_of, numbered, write

GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def assert_same_geometry(path, reference, volumes=False):
    """`path` has the geometry of `reference`, bit for bit, to nibabel and to SimpleITK."""
    ours, theirs = nib.load(path), nib.load(reference)
    for field in GEOMETRY:
        assert ours.header[field].tobytes() == theirs.header[field].tobytes(), field
    assert ours.header["pixdim"][:4].tobytes() == theirs.header["pixdim"][:4].tobytes()
    assert ours.affine.tobytes() == theirs.affine.tobytes()
    if volumes:
        assert ours.shape == theirs.shape[:3]
        return
    assert ours.shape == theirs.shape
    if isinstance(ours, nib.Nifti2Image):  # not read by SimpleITK
        return
    ours, theirs = sitk.ReadImage(str(path)), sitk.ReadImage(str(reference))
    for field in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, field)() == getattr(theirs, field)(), field


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_48_orientations(tmp_path, order, signs, oblique):
    affine = affine_of(order, signs, oblique=oblique)
    # Only the qform, only the sform, both.
    for codes in ((1, 0), (0, 4), (1, 2)):
        file = write(tmp_path / "in.nii", numbered(), affine, codes=codes)
        scan = read_scan(file)
        # RAS+: each array axis runs along the world axis of its number.
        assert nib.aff2axcodes(scan.grid.affine) == ("R", "A", "S")
        assert scan.array.dtype == np.float32
        # Every value is at the place in the world where SimpleITK sees it (LPS there).
        itk = sitk.ReadImage(str(file))
        for voxel in ((0, 0, 0), (1, 2, 3), (2, 3, 4)):
            point = np.array(itk.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
            x, y, z = np.round(scan.grid.voxel(point)).astype(int)
            assert scan.array[x, y, z] == itk[voxel]
        out = save_like(scan.array, scan, tmp_path / "out.nii", kind="image", force=True)
        np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), numbered())
        assert_same_geometry(out, file)


def test_qform_and_sform_that_differ_are_both_kept(tmp_path):
    file = write(tmp_path / "in.nii.gz", numbered(), affine_of(), codes=(1, 0))
    image = nib.load(file)
    image.header.set_sform(affine_of(oblique=True), 4)
    nib.save(nib.Nifti1Image(numbered(), None, image.header), file)
    scan = read_scan(file)
    np.testing.assert_array_equal(scan.file_affine, nib.load(file).header.get_sform())
    assert_same_geometry(save_like(scan.array, scan, tmp_path / "out.nii.gz", kind="image"), file)


@pytest.mark.parametrize("qfac", [0.0, -1.0, 1.0])
def test_sign_of_pixdim_0(tmp_path, qfac):
    file = write(tmp_path / "in.nii", numbered(), affine_of(signs=(-1, 1, 1)), codes=(1, 0))
    with file.open("r+b") as raw:
        raw.seek(76)
        raw.write(np.float32(qfac).tobytes())
    scan = read_scan(file)
    assert np.linalg.det(scan.file_affine) * (qfac or 1) > 0
    assert_same_geometry(save_like(scan.array, scan, tmp_path / "out.nii", kind="image"), file)


def test_sheared_sform_is_kept(tmp_path):
    affine = affine_of()
    affine[0, 2] = 0.8
    file = write(tmp_path / "in.nii", numbered(), affine, codes=(0, 2))
    scan = read_scan(file)
    out = save_like(scan.array, scan, tmp_path / "out.nii", kind="image")
    assert nib.load(out).affine.tobytes() == nib.load(file).affine.tobytes()


@pytest.mark.parametrize("index", range(4))
def test_volume_of_a_4d_file(tmp_path, index):
    array = np.random.default_rng(0).normal(size=(*SHAPE, 4)).astype(np.float32)
    file = write(tmp_path / "in.nii.gz", array, affine_of((2, 0, 1), (1, -1, -1), oblique=True))
    scan = read_scan(f"{file}#{index}")
    out = save_like(scan.array, scan, tmp_path / "out.nii.gz", kind="image")
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), array[..., index])
    assert_same_geometry(out, file, volumes=True)
    assert scan.file_shape == (*SHAPE, 4)


def test_fifth_axis_counts_as_volumes(tmp_path):
    array = numbered((*SHAPE, 1, 3))
    file = write(tmp_path / "vectors.nii", array, affine_of())
    np.testing.assert_array_equal(read_scan(f"{file}#2").array, array[..., 0, 2])


def test_trailing_axis_of_one_is_kept(tmp_path):
    file = write(tmp_path / "in.nii", numbered((*SHAPE, 1)), affine_of((1, 2, 0), (1, 1, -1)))
    scan = read_scan(file)
    assert scan.array.ndim == 3
    np.testing.assert_array_equal(read_scan(f"{file}#0").array, scan.array)
    out = save_like(scan.array, scan, tmp_path / "out.nii", kind="image")
    assert nib.load(out).shape == (*SHAPE, 1)
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), numbered((*SHAPE, 1)))


def test_a_file_with_a_number_sign_in_its_name(tmp_path):
    file = write(tmp_path / "a#1.nii", numbered(), affine_of())
    (tmp_path / "a#1.nii").rename(tmp_path / "b.nii#1")
    assert read_scan(tmp_path / "b.nii#1").array.shape == SHAPE
    assert not file.exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_scaled_header(tmp_path, dtype):
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    file = write(tmp_path / "in.nii", numbered(dtype=dtype), affine_of(), header=header, scaling=(0.5, -1024))
    assert nib.load(file).get_data_dtype() == dtype
    scan = read_scan(file)
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, numbered() / 2 - 1024)
    # The output has its own values in float32, not the reference's integers and scaling.
    out = nib.load(save_like(scan.array + 0.25, scan, tmp_path / "out.nii", kind="image"))
    assert out.get_data_dtype() == np.float32
    assert (out.dataobj.slope, out.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asarray(out.dataobj), numbered() / 2 - 1024 + 0.25)
    assert_same_geometry(tmp_path / "out.nii", file)


def test_slope_of_zero_means_no_scaling(tmp_path):
    file = write(tmp_path / "in.nii", numbered(dtype=np.int16), affine_of())
    with file.open("r+b") as raw:
        raw.seek(112)
        raw.write(np.float32([0, 7]).tobytes())
    np.testing.assert_array_equal(read_scan(file).array, numbered())


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2_and_big_endian(tmp_path, kind, order):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    file = write(tmp_path / "in.nii.gz", numbered(dtype=np.int16), affine_of(oblique=True), header=header, kind=kind)
    assert nib.load(file).header.endianness == order
    scan = read_scan(file)
    np.testing.assert_array_equal(scan.array, numbered())
    assert scan.array.dtype.isnative
    out = nib.load(save_like(scan.array, scan, tmp_path / "out.nii.gz", kind="image"))
    assert isinstance(out, nib.Nifti2Image) == (kind is nib.Nifti2Image)
    np.testing.assert_array_equal(np.asarray(out.dataobj), numbered())
    assert_same_geometry(tmp_path / "out.nii.gz", file)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("unknown", 1), ("micron", 0.001), ("meter", 1000)])
def test_grid_is_in_mm_whatever_the_header_counts_in(tmp_path, unit, factor):
    file = write(tmp_path / "in.nii", numbered(), affine_of(), unit=unit)
    scan = read_scan(file)
    np.testing.assert_allclose(scan.grid.spacing, np.array([0.9765625, 1.25, 3.27]) * factor, rtol=1e-6)
    assert_same_geometry(save_like(scan.array, scan, tmp_path / "out.nii", kind="image"), file)


def test_gzip_without_its_suffix_and_the_reverse(tmp_path):
    file = write(tmp_path / "in.nii", numbered(), affine_of())
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    plain = tmp_path / "plain.nii.gz"
    plain.write_bytes(file.read_bytes())
    np.testing.assert_array_equal(read_scan(packed).array, read_scan(plain).array)


@pytest.mark.parametrize(("highest", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
@pytest.mark.parametrize("stored", [np.uint16, np.int32, np.float32, np.float64])
def test_labels(tmp_path, highest, dtype, stored):
    labels = np.zeros(SHAPE, stored)
    labels[1, 2, 3] = highest
    file = write(tmp_path / "in.nii.gz", labels, affine_of(signs=(-1, -1, 1)))
    scan = read_label(file)
    assert scan.array.dtype == dtype
    assert scan.array[1, 1, 3] == highest  # flipped along X and Y
    out = nib.load(save_like(scan.array.astype(np.int64), scan, tmp_path / "out.nii.gz", kind="label"))
    assert out.get_data_dtype() == dtype
    assert out.header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asarray(out.dataobj), labels)
    assert_same_geometry(tmp_path / "out.nii.gz", file)


@pytest.mark.parametrize("values", [(0.5, 1), (-1, 0), (0, 65536), (0, np.nan), (0, np.inf)])
def test_an_image_is_no_label(tmp_path, values):
    labels = np.zeros(SHAPE, np.float32)
    labels[0, 0, :2] = values
    with pytest.raises(UserError, match=r"expected labels, whole numbers .*in\.nii; is it an image"):
        read_label(write(tmp_path / "in.nii", labels, affine_of()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, bad):
    array = numbered()
    array[0, 0, :2] = bad
    file = write(tmp_path / "in.nii", array, affine_of())
    with pytest.raises(UserError, match=r"NaN or infinity in 2 of 60 voxels of .*in\.nii"):
        read_scan(file)
    assert np.isfinite(read_scan(file, finite=False).array).sum() == 58


def test_overflow_in_float32_is_not_finite(tmp_path):
    file = write(tmp_path / "in.nii", np.full(SHAPE, 1e300), affine_of())
    with pytest.raises(UserError, match="NaN or infinity in 60"):
        read_scan(file)


def test_constant_image(tmp_path):
    scan = read_scan(write(tmp_path / "in.nii", np.full(SHAPE, 7, np.int16), affine_of()))
    with pytest.raises(UserError, match=r"expected an image, got 7 in every voxel of .*in\.nii; leave"):
        check_informative(scan)
    check_informative(new_scan(numbered(), scan.grid))


def test_what_describes_the_reference_only_is_reset(tmp_path):
    header = nib.Nifti1Header()
    header["cal_max"], header["descrip"], header["aux_file"] = 400, b"FLAIR of Jane Doe", b"jane.par"
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    scan = read_scan(write(tmp_path / "in.nii", numbered(), affine_of(), header=header))
    out = save_like(scan.array, scan, tmp_path / "out.nii", kind="image")
    assert b"ane" not in out.read_bytes()
    assert nib.load(out).header["cal_max"] == 0
    assert scan.header["cal_max"] == 400


@pytest.mark.parametrize("shear", [0.0, 0.5])
def test_new_scan(tmp_path, shear):
    affine = affine_of(oblique=True)
    affine[0, 2] += shear
    grid = Grid(SHAPE, affine)
    out = save_like(numbered(), new_scan(numbered(), grid), tmp_path / "out.nii.gz", kind="image")
    again = read_scan(out)
    np.testing.assert_array_equal(again.array, numbered())
    assert relation(again.grid, grid) == "same_grid"
    header = nib.load(out).header
    assert (header["sform_code"], header["qform_code"]) == (1, 0 if shear else 1)
    if not shear:
        np.testing.assert_allclose(sitk.ReadImage(str(out)).GetSpacing(), grid.spacing, rtol=1e-6)
        np.testing.assert_allclose(header.get_qform(), affine, atol=1e-4)


def test_same_scan_same_bytes(tmp_path):
    scan = new_scan(numbered(), Grid(SHAPE, affine_of()))
    one = save_like(scan.array, scan, tmp_path / "one.nii.gz", kind="image")
    two = save_like(scan.array, scan, tmp_path / "two.nii.gz", kind="image")
    assert one.read_bytes() == two.read_bytes()


def test_sidecar(tmp_path):
    scan = new_scan(numbered(), Grid(SHAPE, affine_of()))
    save_like(scan.array, scan, tmp_path / "a" / "x.y.nii.gz", kind="image", sidecar={"Synthetic": True})
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["x.y.json", "x.y.nii.gz"]
    assert json.loads((tmp_path / "a" / "x.y.json").read_text()) == {"Synthetic": True}


@pytest.mark.parametrize("existing", ["out.nii.gz", "out.json"])
def test_nothing_is_overwritten_without_force(tmp_path, existing):
    scan = new_scan(numbered(), Grid(SHAPE, affine_of()))
    (tmp_path / existing).write_text("mine")

    def save(force):
        return save_like(
            scan.array, scan, tmp_path / "out.nii.gz", kind="image", force=force, sidecar={"Synthetic": True}
        )

    with pytest.raises(UserError, match=rf"{existing} not to exist yet, but it does; .* --force"):
        save(force=False)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]
    save(force=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "out.nii.gz").array, numbered())


@pytest.mark.parametrize("name", ["out.mha", "out.nii.zip", "out", ".nii", "out.nii.gz.json"])
def test_wrong_suffix(tmp_path, name):
    scan = new_scan(numbered(), Grid(SHAPE, affine_of()))
    with pytest.raises(UserError, match=r"ending in \.nii or \.nii\.gz"):
        save_like(scan.array, scan, tmp_path / name, kind="image")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "kind", "complaint"),
    [
        (numbered((3, 4, 6)), "image", "shape"),
        (np.full(SHAPE, np.nan), "image", "finite"),
        (np.full(SHAPE, 1e39), "image", "finite"),
        (np.full(SHAPE, 0.5), "label", "labels"),
        (np.full(SHAPE, -1), "label", "labels"),
        (np.full(SHAPE, 70000), "label", "labels"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_arrays_are_not_written(tmp_path, array, kind, complaint):
    scan = new_scan(numbered(), Grid(SHAPE, affine_of()))
    with pytest.raises(ValueError, match=complaint):
        save_like(array, scan, tmp_path / "out.nii", kind=kind)
    assert not list(tmp_path.iterdir())


def test_masks_are_labels(tmp_path):
    scan = new_scan(numbered(), Grid(SHAPE, affine_of()))
    out = save_like(numbered() > 7, scan, tmp_path / "out.nii", kind="label")
    assert nib.load(out).get_data_dtype() == np.uint8
    assert isinstance(read_label(out), Scan)
