import pytest

from medprism.data.layouts import msd
from medprism.errors import UserError
from tests.data.layouts.fakes import by_name, dataset_json, read, touch


def msd_root(root, **changes):
    content = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema"},
        "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    return touch(dataset_json(root, **(content | changes)), "imagesTr/BRATS_001.nii.gz")


def test_decathlon_volumes(tmp_path):
    found = read(msd_root(tmp_path), msd)
    assert found.name == "BRATS"
    assert found.modalities == ("t2f", "t1n", "t1c", "t2w")
    one = by_name(found)["BRATS_001"]
    assert one.images["t1c"] == "imagesTr/BRATS_001.nii.gz#2"
    assert one.seg == "labelsTr/BRATS_001.nii.gz"
    assert found.labels == {"background": 0, "edema": 1}
    assert [s.subject for s in found.sides["test"]] == ["BRATS_485"]


def test_decathlon_of_one_modality_is_plain_files(tmp_path):
    found = msd.read(msd_root(tmp_path, modality={"0": "CT"}))
    assert by_name(found)["BRATS_001"].images == {"ct": "imagesTr/BRATS_001.nii.gz"}


@pytest.mark.parametrize(
    "changes", [{"training": ["x"]}, {"training": [{"image": "x"}]}, {"labels": {"0": 0, "a": "b"}}]
)
def test_decathlon_refuses(tmp_path, changes):
    with pytest.raises(UserError, match="of the Decathlon"):
        msd.read(msd_root(tmp_path, **changes))
