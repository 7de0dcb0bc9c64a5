import pytest

from medprism.data import layouts
from medprism.errors import UserError
from tests.data.layouts.fakes import touch


def test_ambiguous(tmp_path):
    touch(tmp_path, "a/CT_image.nii.gz", "b/t1.nii.gz")
    with pytest.raises(UserError, match="looks like ibsi and flat; say which with --layout ibsi"):
        layouts.read(tmp_path)
    assert layouts.read(tmp_path, "flat")[0].subjects()[0].subject == "b"


def test_unknown_layout_missing_folder_and_nothing_there(tmp_path):
    touch(tmp_path, "a/t1.nii.gz")
    with pytest.raises(UserError, match=r"expected a layout \(auto brats .*got 'nnUNet'"):
        layouts.read(tmp_path, "nnUNet")
    with pytest.raises(UserError, match=r"no subject found in .* in the layout ibsi"):
        layouts.read(tmp_path, "ibsi")
    with pytest.raises(UserError, match="does not exist"):
        layouts.read(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no scans found in .*<subject>/<modality>.nii.gz"):
        layouts.read(tmp_path / "empty")
    with pytest.raises(UserError, match="dcm2niix"):
        layouts.read(touch(tmp_path / "dicom", "series/1.dcm"))
