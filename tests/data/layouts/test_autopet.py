import pytest

from medprism.data.layouts import autopet
from tests.data.layouts.fakes import by_name, nnunet_root, read, touch


@pytest.mark.parametrize("around", ["", "FDG-PET-CT-Lesions/"])
def test_autopet_tree(tmp_path, around):
    for study in ("PETCT_0143bd/12-14-2003-NA-Unspecified CT ABDOMEN-43286", "PETCT_0143bd/2-NA", "PETCT_02/1-NA"):
        touch(tmp_path, *(f"{around}{study}/{n}.nii.gz" for n in ("CT", "CTres", "SUV", "PET", "SEG")))
    found = read(tmp_path, autopet)
    first = by_name(found)["PETCT_0143bd_12-14-2003-NA-Unspecified-CT-ABDOMEN-43286"]
    assert first.person == by_name(found)["PETCT_0143bd_2-NA"].person == "PETCT_0143bd"
    assert first.images["ct"].endswith("/CTres.nii.gz")
    assert first.images["pet"].endswith("/SUV.nii.gz")
    assert first.seg.endswith("/SEG.nii.gz")
    assert found.labels == {"background": 0, "lesion": 1}


def test_autopet_cases_are_ct_and_pet_whatever_dataset_json_says(tmp_path):
    root = nnunet_root(tmp_path, channel_names={"0": "CT", "1": "CT"}, labels={"background": 0, "tumor": 1})
    for case in (
        "fdg_01140d52d8_08-13-2005-NA-PET-CT Ganzkoerper-56839",
        "fdg_01140d52d8_2",
        "psma_95b833d65be26d2f_3",
    ):
        touch(root, f"imagesTr/{case}_0000.nii.gz", f"imagesTr/{case}_0001.nii.gz", f"labelsTr/{case}.nii.gz")
    found = read(root, autopet)
    assert {s.person for s in found.subjects()} == {"fdg_01140d52d8", "psma_95b833d65be26d2f"}
    assert by_name(found)["fdg_01140d52d8_2"].images["pet"] == "imagesTr/fdg_01140d52d8_2_0001.nii.gz"
    assert by_name(found)["psma_95b833d65be26d2f_3"].site == "LMU"
