import json

import numpy as np
import pytest

from medprism.data.intensity import Scale
from medprism.errors import UserError
from medprism.inference.result import Convention, Result, uncertainty_path
from medprism.io import Grid, new_scan, read_scan

TYPICAL = Scale(offset=100.0, scale=20.0, low=-5.0, high=5.0)
VALUES = np.linspace(-7, 7, 24, dtype=np.float32).reshape(2, 3, 4)
EVERYWHERE = np.ones(VALUES.shape, dtype=bool)


def test_like_train_is_the_typical_scale_within_its_range():
    convention = Convention.of("like-train", TYPICAL, "a.u.")
    assert convention.range == (0.0, 200.0)
    np.testing.assert_allclose(convention.write(VALUES, EVERYWHERE), np.clip(VALUES * 20 + 100, 0, 200), rtol=1e-6)


@pytest.mark.parametrize("scale", [TYPICAL, Scale(0.0, 500.0, -2.0, 2.0), Scale(0, 2.5, 0, 8)])
def test_unit_is_the_clip_range_as_zero_to_one(scale):
    convention = Convention.of("unit", scale, "HU")
    np.testing.assert_allclose(convention.range, (0, 1), atol=1e-6)
    assert convention.unit == "1"
    middle = np.full((1, 1, 1), (scale.low + scale.high) / 2, np.float32)
    np.testing.assert_allclose(convention.write(middle, np.ones((1, 1, 1), bool)), 0.5, rtol=1e-6)
    assert convention.write(middle, np.zeros((1, 1, 1), bool)) == 0


@pytest.mark.parametrize(
    ("unit", "typical", "air"),
    [
        ("a.u.", TYPICAL, 0.0),
        ("a.u.", Scale(500.0, 20.0, -5.0, 5.0), 0.0),  # 0 lies outside the range and is still the background
        ("SUV", Scale(0.0, 2.5, 0.0, 8.0), 0.0),
        ("HU", Scale(0.0, 500.0, -2.0, 2.0), -1000.0),
        ("HU", Scale(40.0, 100.0, -2.0, 2.0), -160.0),
    ],
)
def test_the_background_is_exact(unit, typical, air):
    mask = VALUES > 0
    out = Convention.of("like-train", typical, unit).write(VALUES, mask)
    assert (out[~mask] == air).all()
    assert out.dtype == np.float32


def result(uncertainty=None):
    reference = new_scan(VALUES, Grid(VALUES.shape, np.diag([1, 2, 3, 1.0])))
    return Result("t2f", VALUES, uncertainty, reference, {"Synthetic": True})


def test_saved_scan_sidecar_and_uncertainty(tmp_path):
    path = result(VALUES**2).save(tmp_path / "a" / "t2f.nii.gz")
    np.testing.assert_array_equal(read_scan(path).array, VALUES)
    np.testing.assert_array_equal(read_scan(uncertainty_path(path)).array, VALUES**2)
    assert json.loads((tmp_path / "a" / "t2f.json").read_text())["Synthetic"] is True
    assert json.loads((tmp_path / "a" / "t2f_uncertainty.json").read_text())["Synthetic"] is True


@pytest.mark.parametrize("there", ["t2f.nii.gz", "t2f.json", "t2f_uncertainty.nii.gz"])
def test_nothing_is_written_where_an_output_exists(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match="--force"):
        result(VALUES**2).save(tmp_path / "t2f.nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == [there]
    result(VALUES**2).save(tmp_path / "t2f.nii.gz", force=True)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_kill_before_the_scan_leaves_no_scan(tmp_path, monkeypatch):
    from medprism.inference import result as module

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_like", killed)
    with pytest.raises(KeyboardInterrupt):
        result().save(tmp_path / "t2f.nii.gz")
    monkeypatch.undo()
    assert not (tmp_path / "t2f.nii.gz").exists()
    result().save(tmp_path / "t2f.nii.gz", force=True)


def test_name_of_the_uncertainty(tmp_path):
    assert uncertainty_path(tmp_path / "a.b.nii.gz") == tmp_path / "a.b_uncertainty.nii.gz"
    assert uncertainty_path(tmp_path / "a.nii") == tmp_path / "a_uncertainty.nii"
    bids = tmp_path / "sub-1_desc-synthetic_T2w.nii.gz"
    assert uncertainty_path(bids).name == "sub-1_desc-uncertainty_T2w.nii.gz"
