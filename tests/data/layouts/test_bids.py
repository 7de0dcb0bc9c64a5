from medprism.data.layouts import bids
from tests.data.layouts.fakes import by_name, read, touch


def test_bids_sessions_and_modalities(tmp_path):
    touch(
        tmp_path,
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_ce-gadolinium_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_desc-synthetic_T2w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_bold.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_PDw.nii.gz",
        "sub-02/pet/sub-02_trc-FDG_rec-acstat_pet.nii.gz",
        "sub-02/pet/sub-02_trc-FDG_rec-nacstat_pet.nii.gz",
        "sub-02/ct/sub-02_ct.nii.gz",
        "derivatives/lesions/sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz",
        "derivatives/bet/sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii.gz",
    )
    found = read(tmp_path, bids)
    subjects = by_name(found)
    first = subjects["sub-01_ses-1"]
    assert first.person == subjects["sub-01_ses-2"].person == "sub-01"
    assert set(first.images) == {"t1n", "t1c", "t2f"}
    assert first.images["t1c"].endswith("ce-gadolinium_T1w.nii.gz")
    assert first.seg == "derivatives/lesions/sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz"
    assert set(subjects["sub-01_ses-2"].images) == {"pd"}
    assert set(subjects["sub-02"].images) == {"pet", "nac", "ct"}
    assert "nacstat" in subjects["sub-02"].images["nac"]


def test_bids_takes_the_plainest_run_and_says_so(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_run-2_T1w.nii.gz", "sub-1/anat/sub-1_run-1_T1w.nii.gz")
    found = read(tmp_path, bids)
    assert by_name(found)["sub-1"].images["t1n"].endswith("run-1_T1w.nii.gz")
    assert found.notes == ["sub-1: sub-1_run-1_T1w.nii.gz taken of 2 scans that are t1n"]
