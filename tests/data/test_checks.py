import gzip

import numpy as np
import pytest

from medprism.data.checks import Labels, check, duplicates
from medprism.data.cohort import Subject
from tests.data.fake_scans import SHAPE, label, scan

KNOWN = Labels({"background": 0, "a": 1, "b": 3}, {4: 3})


def subject(*modalities, **fields):
    return Subject("s", "s", {m: f"{m}.nii.gz" for m in modalities}, **fields)


def test_sound_subject(tmp_path):
    scan(tmp_path / "t1n.nii.gz")
    scan(tmp_path / "t2w.nii.gz", flip=True)
    label(tmp_path / "seg.nii.gz", 1, 4, 4)
    checked = check(subject("t1n", "t2w", seg="seg.nii.gz"), tmp_path, KNOWN)
    assert checked.fatal == checked.doubts == []
    assert checked.scans["t1n"].grid.shape == SHAPE
    assert (checked.scans["t1n"].axes, checked.scans["t2w"].axes) == ("RAS", "LAS")
    np.testing.assert_allclose(checked.scans["t1n"].grid.affine, checked.scans["t2w"].grid.affine)
    assert checked.values == {0, 1, 3}
    assert checked.volumes == {1: pytest.approx(0.008), 3: pytest.approx(0.016)}


def test_quantiles_are_those_of_the_non_zero_voxels(tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array.flat[:101] = np.arange(101) + 1000
    scan(tmp_path / "t1n.nii.gz", array)
    checked = check(subject("t1n"), tmp_path, KNOWN)
    assert checked.scans["t1n"].quantiles == pytest.approx((0, 1001, 1050, 1099, 1100))


def test_header_gives_the_same_grid_as_the_voxels(tmp_path):
    scan(tmp_path / "t1n.nii.gz", spacing=1.5, origin=(-3, 4, 5), flip=True)
    scan(tmp_path / "t2w.nii.gz", np.random.default_rng(0).random((*SHAPE, 2)).astype(np.float32))
    who = Subject("s", "s", {"t1n": "t1n.nii.gz", "t2w": "t2w.nii.gz#1"})
    full, quick = (check(who, tmp_path, KNOWN, quick=q) for q in (False, True))
    for modality in ("t1n", "t2w"):
        assert quick.scans[modality].grid.shape == full.scans[modality].grid.shape
        np.testing.assert_array_equal(quick.scans[modality].grid.affine, full.scans[modality].grid.affine)
        assert quick.scans[modality].axes == full.scans[modality].axes
        assert quick.scans[modality].quantiles is None


def nan(path):
    array = np.ones(SHAPE, np.float32)
    array[0, 0, 0] = np.nan
    scan(path, array)


def truncated(path):
    scan(path)
    path.write_bytes(path.read_bytes()[:-200])


def not_nifti(path):
    path.write_bytes(gzip.compress(b"no image" * 100))


@pytest.mark.parametrize(
    ("spoil", "message", "seen_quickly"),
    [
        (lambda path: None, "got no such file", True),
        (nan, "got NaN or infinity", False),
        (lambda path: scan(path, np.full(SHAPE, 7, np.float32)), "got 7 in every voxel", False),
        (truncated, "truncated", False),
        (not_nifti, "expected a NIfTI", True),
        (lambda path: scan(path, np.ones((*SHAPE, 3), np.float32)), "volume", True),
    ],
)
def test_unreadable_scan_is_fatal_and_named(tmp_path, spoil, message, seen_quickly):
    scan(tmp_path / "t1n.nii.gz")
    spoil(tmp_path / "t2w.nii.gz")
    (line,) = check(subject("t1n", "t2w"), tmp_path, KNOWN).fatal
    assert line.startswith("t2w: ")
    assert message in line
    quick = check(subject("t1n", "t2w"), tmp_path, KNOWN, quick=True)
    assert bool(quick.fatal) == seen_quickly


@pytest.mark.parametrize("quick", [True, False])
def test_no_scan_and_scans_apart_are_fatal(tmp_path, quick):
    assert check(subject(), tmp_path, KNOWN, quick=quick).fatal == ["has no scan"]
    scan(tmp_path / "t1n.nii.gz")
    scan(tmp_path / "t2w.nii.gz", origin=(0, 0, 300))
    (line,) = check(subject("t1n", "t2w"), tmp_path, KNOWN, quick=quick).fatal
    assert "t1n and t2w in one world space" in line
    assert "300 mm apart" in line


def test_other_grid_of_one_space_is_fine(tmp_path):
    scan(tmp_path / "t1n.nii.gz")
    scan(tmp_path / "t2w.nii.gz", spacing=2.5, origin=(-1, -1, -1))
    assert check(subject("t1n", "t2w"), tmp_path, KNOWN).fatal == []


def test_label_outside_the_declared_set_is_fatal(tmp_path):
    scan(tmp_path / "t1n.nii.gz")
    label(tmp_path / "seg.nii.gz", 1, 2, 4)
    who = subject("t1n", seg="seg.nii.gz")
    (line,) = check(who, tmp_path, KNOWN).fatal
    assert line.startswith("seg: expected label values [0, 1, 3, 4], got also [2]")
    assert check(who, tmp_path, Labels(None)).values == {0, 1, 2, 4}
    assert check(who, tmp_path, Labels(None), quick=True).values == {0, 1, 2, 4}
    assert check(who, tmp_path, KNOWN, quick=True).fatal == []


@pytest.mark.parametrize("quick", [True, False])
def test_missing_label_is_fatal(tmp_path, quick):
    scan(tmp_path / "t1n.nii.gz")
    (line,) = check(subject("t1n", seg="seg.nii.gz"), tmp_path, KNOWN, quick=quick).fatal
    assert line.startswith("seg: expected")
    assert "seg.nii.gz" in line


def test_label_off_the_grids(tmp_path):
    scan(tmp_path / "t1n.nii.gz")
    label(tmp_path / "far.nii.gz", 1, origin=(500, 0, 0))
    label(tmp_path / "coarse.nii.gz", 1, spacing=4.0, shape=(3, 4, 4))
    (line,) = check(subject("t1n", seg="far.nii.gz"), tmp_path, KNOWN).fatal
    assert "500 mm from t1n" in line
    coarse = check(subject("t1n", seg="coarse.nii.gz"), tmp_path, KNOWN)
    assert coarse.fatal == []
    assert coarse.doubts == ["seg is on the grid of no scan; it will be resampled"]


def test_one_lesion_at_two_places_is_odd(tmp_path):
    for modality, z in (("ct", 0), ("pet", 7)):
        scan(
            tmp_path / f"{modality}.nii.gz",
            np.linspace(-900, 50, 336).reshape(SHAPE) * (modality == "ct") + np.eye(7)[:6, :, None],
            spacing=4,
        )
        array = np.zeros(SHAPE, np.uint8)
        array[2, 2, z] = 1
        scan(tmp_path / f"{modality}_mask.nii.gz", array, spacing=4)
    segs = {m: f"{m}_mask.nii.gz" for m in ("ct", "pet")}
    checked = check(subject("ct", "pet", seg=segs["ct"], segs=segs), tmp_path, KNOWN)
    assert checked.fatal == []
    assert checked.doubts == [
        "seg.ct and seg.pet have their centres 28 mm apart; look whether the scans are registered"
    ]


@pytest.mark.parametrize(
    ("modality", "low", "high", "doubt"),
    [
        ("ct", -1000, 1500, None),
        ("ct", 0, 2500, "expected HU"),
        ("ct", -1, 1, "expected HU"),
        ("pet", 0, 15, None),
        ("pet", 0, 20000, "expected SUV"),
        ("pet", -5, 5, "expected activity from 0 on"),
        ("nac", 0, 20000, None),
        ("t1n", -40, 20000, None),
    ],
)
def test_unit(tmp_path, modality, low, high, doubt):
    scan(tmp_path / f"{modality}.nii.gz", np.linspace(low, high, 336, dtype=np.float32).reshape(SHAPE))
    doubts = check(subject(modality), tmp_path, KNOWN).doubts
    assert len(doubts) == (doubt is not None)
    assert all(doubt in line and line.startswith(f"{modality}: ") for line in doubts)


def test_duplicates(tmp_path):
    array = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    for name in ("a/t1n", "b/t1n", "b/t2w"):
        scan(tmp_path / f"{name}.nii.gz", array + (name == "b/t2w"))
    checked = [
        check(Subject(s, s, {m: f"{s}/{m}.nii.gz" for m in ms}), tmp_path, KNOWN)
        for s, ms in (("a", ["t1n"]), ("b", ["t1n", "t2w"]))
    ]
    assert duplicates(checked) == [("a: t1n", "b: t1n")]
