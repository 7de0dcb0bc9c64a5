import pytest

from medprism.data.layouts import nnunet
from medprism.errors import UserError
from tests.data.layouts.fakes import by_name, dataset_json, nnunet_root, read, touch


def test_nnunet_with_gaps(tmp_path):
    root = touch(
        nnunet_root(tmp_path / "Dataset001_Brain"),
        "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/a_0002.nii.gz", "imagesTr/b_0002.nii.gz",
        "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "imagesTs/c_0001.nii.gz",
    )  # fmt: skip
    found = read(root, nnunet)
    assert found.modalities == ("t1n", "t1c", "t2f")
    assert by_name(found)["b"].images == {"t2f": "imagesTr/b_0002.nii.gz"}
    assert by_name(found)["b"].seg == "labelsTr/b.nii.gz"
    assert [s.subject for s in found.sides["test"]] == ["c"]
    assert by_name(found)["c"].seg is None
    assert found.labels == {"background": 0, "core": 1, "edema": 2}


def test_nnunet_regions(tmp_path):
    root = nnunet_root(tmp_path, labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": "3"})
    found = read(touch(root, "imagesTr/a_0000.nii.gz"), nnunet)
    assert found.labels == {"background": 0, "enhancing": 3, "label_1": 1, "label_2": 2}
    assert found.regions == {"whole": [1, 2, 3], "core": [2, 3]}


def test_nnunet_first_version(tmp_path):
    root = dataset_json(tmp_path, modality={"0": "CT"}, labels={"0": "background", "1": "liver"}, training=[])
    found = read(touch(root, "imagesTr/a_0000.nii.gz"), nnunet)
    assert found.labels == {"background": 0, "liver": 1}


def test_nnunet_problems_by_case(tmp_path):
    root = touch(
        nnunet_root(tmp_path), "imagesTr/a_0000.nii.gz", "imagesTr/a_0007.nii.gz", "imagesTr/b.nii.gz",
        "labelsTr/z.nii.gz",
    )  # fmt: skip
    found = nnunet.read(root)
    assert found.problems.keys() == {"a", "b"}
    assert "a_0007.nii.gz: expected <case>_<channel>" in found.problems["a"][0]
    assert by_name(found)["z"].images == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": {"0": "T7"}}, "dataset.json: expected a modality .*got 'T7'"),
        ({"channel_names": {"0": "CT", "1": "CT"}}, "two channels are ct"),
        ({"channel_names": ["CT"]}, "expected `channel_names`"),
        ({"labels": {"core": "one"}}, "expected `labels`"),
    ],
)
def test_nnunet_refuses(tmp_path, changes, message):
    root = touch(nnunet_root(tmp_path, **changes), "imagesTr/a_0000.nii.gz")
    with pytest.raises(UserError, match=message):
        nnunet.read(root)


def test_nnunet_case_in_both_sides(tmp_path):
    root = touch(nnunet_root(tmp_path), "imagesTr/a_0000.nii.gz", "imagesTs/a_0000.nii.gz")
    with pytest.raises(UserError, match="subject 'a' is found twice"):
        nnunet.read(root)
