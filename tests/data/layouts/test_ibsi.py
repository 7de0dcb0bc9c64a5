from medprism.data.layouts import ibsi
from tests.data.layouts.fakes import read, touch


def test_ibsi_has_a_mask_per_grid(tmp_path):
    touch(tmp_path, *(f"STS_001/{m}_{k}.nii.gz" for m in ("CT", "PET", "MR_T1") for k in ("image", "mask")))
    touch(tmp_path, "STS_002/PET_image.nii.gz", "STS_002/PET_mask.nii.gz", "STS_002/CT_image.nii.gz")
    found = read(tmp_path, ibsi)
    one, two = found.subjects()
    assert set(one.images) == {"ct", "pet", "t1n"}
    assert one.segs == {m: one.images[m].replace("image", "mask") for m in one.images}
    assert one.seg in one.segs.values()
    assert two.segs == {"pet": "STS_002/PET_mask.nii.gz"}
    assert found.labels == {"background": 0, "GTV": 1}
