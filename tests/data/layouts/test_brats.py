import pytest

from medprism.data.layouts import brats
from medprism.errors import UserError
from tests.data.layouts.fakes import by_name, read, touch


def test_brats_2023(tmp_path):
    for case in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"):
        touch(tmp_path, *(f"Training/{case}/{case}-{m}.nii.gz" for m in ("t1n", "t1c", "t2w", "t2f", "seg")))
    touch(tmp_path, "Validation/BraTS-GLI-00003-000/BraTS-GLI-00003-000-t2f.nii.gz")
    found = read(tmp_path, brats)
    one = by_name(found)["BraTS-GLI-00001-001"]
    assert one.person == "BraTS-GLI-00001"
    assert one.images["t1c"] == "Training/BraTS-GLI-00001-001/BraTS-GLI-00001-001-t1c.nii.gz"
    assert set(one.images) == {"t1n", "t1c", "t2w", "t2f"}
    assert by_name(found)["BraTS-GLI-00003-000"].images.keys() == {"t2f"}
    assert by_name(found)["BraTS-GLI-00003-000"].seg is None
    assert found.labels == {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    assert found.regions == {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
    assert found.label_map == {}


def test_brats_old_maps_the_enhancing_tumour_and_knows_the_grade(tmp_path):
    touch(tmp_path, *(f"HGG/Brats18_X_1/Brats18_X_1_{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair", "seg")))
    touch(tmp_path, *(f"LGG/Brats18_Y_2/Brats18_Y_2_{m}.nii" for m in ("t1", "flair", "seg")))
    found = read(tmp_path, brats)
    high, low = by_name(found)["Brats18_X_1"], by_name(found)["Brats18_Y_2"]
    assert set(high.images) == {"t1n", "t1c", "t2w", "t2f"}
    assert high.images["t1c"].endswith("_t1ce.nii.gz")
    assert low.images == {"t2f": "LGG/Brats18_Y_2/Brats18_Y_2_flair.nii", "t1n": "LGG/Brats18_Y_2/Brats18_Y_2_t1.nii"}
    assert (high.class_label, low.class_label) == (1, 0)
    assert found.classes == {"LGG": 0, "HGG": 1}
    assert found.label_map == {4: 3}
    assert found.labels["ET"] == 3


def test_brats_after_treatment_has_the_cavity_as_4(tmp_path):
    touch(tmp_path, *(f"BraTS-GLI-00005-100/BraTS-GLI-00005-100-{m}.nii.gz" for m in ("t1n", "seg")))
    found = read(tmp_path, brats)
    assert found.labels["RC"] == 4
    assert found.label_map == {}
    touch(tmp_path, *(f"BraTS20_001/BraTS20_001_{m}.nii.gz" for m in ("t1", "seg")))
    with pytest.raises(UserError, match="inspect the two sets apart"):
        brats.read(tmp_path)


def test_brats_does_not_guess_what_it_cannot_know(tmp_path):
    touch(tmp_path / "ped", *(f"BraTS-PED-00005-000/BraTS-PED-00005-000-{m}.nii.gz" for m in ("t1n", "seg")))
    touch(tmp_path / "own", *(f"patient7/patient7_{m}.nii.gz" for m in ("t1", "seg")))
    touch(tmp_path / "rt", *(f"BraTS-MEN-RT-0001-1/BraTS-MEN-RT-0001-1_{m}.nii.gz" for m in ("t1c", "gtv")))
    assert read(tmp_path / "ped", brats).labels is None
    assert read(tmp_path / "own", brats).labels is None
    radiotherapy = read(tmp_path / "rt", brats)
    assert radiotherapy.labels == {"background": 0, "GTV": 1}
    assert radiotherapy.label_map == {}
    assert by_name(radiotherapy)["BraTS-MEN-RT-0001-1"].person == "BraTS-MEN-RT-0001"


def test_brats_one_subject_and_strange_files(tmp_path):
    root = touch(tmp_path / "BraTS20_355", "BraTS20_355_t1.nii", "W39_Segm.nii", "._BraTS20_355_t2.nii", "notes.txt")
    found = read(root, brats)
    assert by_name(found)["BraTS20_355"].images == {"t1n": "BraTS20_355_t1.nii"}
    assert found.notes == ["BraTS20_355: not read, as no modality or label is named so: W39_Segm.nii"]


def test_brats_twice_the_same(tmp_path):
    touch(tmp_path, "HGG/a/a_t1.nii", "LGG/a/a_t1.nii")
    with pytest.raises(UserError, match="subject 'a' is found twice"):
        brats.read(tmp_path)
    touch(tmp_path / "other", "b/b_t1.nii", "b/b_t1n.nii.gz")
    assert "two files for t1n" in brats.read(tmp_path / "other").problems["b"][0]
