import numpy as np
import pytest

from medprism.errors import UserError
from medprism.phantoms.petct import SCANNERS, attenuation, petct_preset, scan_ct, scan_pet


@pytest.fixture(scope="module")
def cylinder():
    """Distance from the axis (X, Y, Z), uptake and CT of a water cylinder of 2 SUV."""
    axis = (np.arange(64) - 31.5) * 5
    far = np.repeat(np.hypot(axis[:, None], axis)[..., None], 12, 2)
    part = np.clip(0.5 - (far - 110) / 5, 0, 1).astype(np.float32)
    return far, 2 * part, 1000 * part - 1000


def test_attenuation_of_water_air_and_bone():
    assert attenuation(np.float32([-1000, -2000, 0])) == pytest.approx([0, 0, 0.0096], abs=1e-6)
    steps = attenuation(np.arange(-1000, 2000, dtype=np.float32))
    assert (np.diff(steps) >= 0).all()
    assert np.diff(steps).max() < 2e-5  # no jump at the break
    # 511 keV sees less of bone's calcium than 120 kV does
    assert attenuation(np.float32([1000]))[0] < 2 * 0.0096


@pytest.mark.parametrize("name", ["A", "B"])
def test_pet_of_a_cylinder(cylinder, name):
    far, suv, hu = cylinder
    pet, nac = scan_pet(suv, hu, 5.0, SCANNERS[name], np.random.default_rng(0))
    assert pet[far < 80].mean() == pytest.approx(2, rel=0.04)
    assert pet[far > 150].mean() < 0.05
    rings = [nac[(far >= low) & (far < low + 15)].mean() for low in (0, 45, 90)]
    assert rings[0] < rings[1] < rings[2]
    assert rings[2] > 2 * rings[0]
    # scatter that is not corrected lies around the body
    assert 0.005 * rings[2] < nac[(far > 130) & (far < 150)].mean() < 0.3 * rings[2]


def test_noise_is_that_of_counts(cylinder):
    far, suv, hu = cylinder
    spread = {}
    for name in ("A", "B"):
        pet, _ = scan_pet(suv, hu, 5.0, SCANNERS[name], np.random.default_rng(1))
        spread[name] = pet[far < 70].std() / pet[far < 70].mean()
    assert 0.03 < spread["A"] < spread["B"] < 0.35


def test_ct_keeps_hu(cylinder):
    far, _, hu = cylinder
    ct = scan_ct(hu, 5.0, SCANNERS["B"], np.random.default_rng(0))
    assert ct[far < 90].mean() == pytest.approx(0, abs=1)
    assert 2 < ct[far < 90].std() < 30
    assert ct.min() >= -1024
    assert np.array_equal(ct, np.rint(ct))
    assert np.corrcoef(ct[:, :, 3][far[:, :, 3] < 80], ct[:, :, 8][far[:, :, 8] < 80])[0, 1] < 0.2


def test_unknown_preset():
    with pytest.raises(UserError, match="scanner A, B or both, got 'C'"):
        petct_preset("C")
