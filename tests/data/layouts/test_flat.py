import pytest

from medprism.data.layouts import flat
from tests.data.layouts.fakes import by_name, read, touch


def test_flat_folders(tmp_path):
    touch(
        tmp_path, "p1/t1.nii.gz", "p1/FLAIR.nii", "p1/seg_lesion_gt.nii.gz", "p1/brainmask.nii.gz", "p2/ct_on_pet.nii"
    )
    touch(tmp_path, "sub-1_ses-2/T2.nii.gz", "templates/MNI.nii.gz", "docs/readme.txt")
    found = read(tmp_path, flat)
    one = by_name(found)["p1"]
    assert one.images == {"t1n": "p1/t1.nii.gz", "t2f": "p1/FLAIR.nii"}
    assert one.seg == "p1/seg_lesion_gt.nii.gz"
    assert by_name(found)["p2"].images == {"ct": "p2/ct_on_pet.nii"}
    assert by_name(found)["sub-1_ses-2"].person == "sub-1"
    assert found.labels is None
    assert [note.split(":")[0] for note in found.notes] == ["p1", "templates"]


def test_flat_single_subject(tmp_path):
    root = touch(tmp_path / "patient19", "t1.nii.gz", "t1c.nii.gz", "seg.nii.gz")
    (one,) = read(root, flat).subjects()
    assert one.subject == "patient19"
    assert one.images == {"t1n": "t1.nii.gz", "t1c": "t1c.nii.gz"}


def test_flat_problems_by_subject(tmp_path):
    touch(tmp_path, "a/t1.nii.gz", "a/T1w.nii.gz", "b/seg.nii.gz", "c/ct.nii", "c/seg.nii", "c/label.nii")
    found = read(tmp_path, flat)
    assert "two files for t1n" in found.problems["a"][0]
    assert by_name(found)["b"].images == {}
    assert "2 label files" in found.problems["c"][0]


@pytest.mark.parametrize(
    ("name", "label"),
    [("seg", True), ("segmentation", True), ("seg_gt", True), ("labels", True), ("lesion-1", True), ("tumour", True),
     ("segway", False), ("labelled", False), ("mask", False)],
)  # fmt: skip
def test_flat_label_names(tmp_path, name, label):
    touch(tmp_path, "a/ct.nii", f"a/{name}.nii")
    assert (flat.read(tmp_path).subjects()[0].seg is not None) == label
