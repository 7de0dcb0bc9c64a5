"""Masks on made-up bodies and brains, and on real scans where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from medprism.data.foreground import foreground
from medprism.io import read_scan, resample

REAL = Path(os.environ.get("MEDPRISM_REAL_DATA", "/nowhere"))
real = pytest.mark.skipif(not REAL.is_dir(), reason="MEDPRISM_REAL_DATA names no folder")


def ball(shape=(48, 48, 24), centre=(24, 24, 12), radius=16.0):
    at = np.moveaxis(np.indices(shape), 0, -1) - np.array(centre)
    return (at**2).sum(axis=-1) < radius**2


def cylinder(centre=(24, 24), radius=16.0, shape=(48, 48, 24)):
    x, y = np.indices(shape[:2])
    return np.repeat(((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)[..., None], shape[2], axis=2)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def thigh_mri(noise, seed=0):
    """Fat 1000 around muscle 250 around bone 0, in noisy air: Rician."""
    rng = np.random.default_rng(seed)
    body = cylinder()
    image = 1000.0 * body
    image[cylinder(radius=13)] = 250
    image[cylinder(radius=4)] = 0
    return body, np.hypot(image + rng.normal(0, noise, body.shape), rng.normal(0, noise, body.shape))


@pytest.mark.parametrize("noise", [5, 20, 40])
def test_mri_in_noisy_air(noise):
    body, image = thigh_mri(noise)
    mask = foreground(image, "auto")
    assert dice(mask, body) > 0.97
    assert mask[cylinder(radius=13)].all()  # no hole in the muscle nor where the bone is


def test_mri_scale_does_not_matter():
    _, image = thigh_mri(20)
    np.testing.assert_array_equal(foreground(image, "auto"), foreground(image * 1e-3, "auto"))


def test_bone_cut_by_the_side_of_the_volume_is_no_hole():
    body, image = thigh_mri(20)
    half = slice(24, None)  # through the middle of the bone
    mask = foreground(image[half], "auto")
    assert mask[cylinder(radius=13)[half]].all()
    assert dice(mask, body[half]) > 0.97


def test_padding_with_zeros_does_not_make_noise_tissue():
    body, image = thigh_mri(30)
    padded = np.pad(image, ((10, 10), (10, 10), (8, 8)))
    assert dice(foreground(padded, "auto"), np.pad(body, ((10, 10), (10, 10), (8, 8)))) > 0.97


def test_extracted_brain_is_what_is_not_zero():
    rng = np.random.default_rng(0)
    brain = ball()
    image = brain * rng.normal(100, 10, brain.shape)
    # Dark fluid two voxels deep at the surface, and inside, and undershoot of resampling: all of it is brain.
    shell = brain & ~ball(radius=14)
    image[shell] = rng.uniform(-3, 9, shell.sum())
    image[ball(radius=4)] = 0
    assert (image < 0).any()
    for rule in ("auto", "nonzero"):
        np.testing.assert_array_equal(foreground(image, rule), brain)


def test_specks_and_markers_are_left_out():
    body, image = thigh_mri(10)
    image[44:47, 44:47, 10:13] = 900
    assert not foreground(image, "auto")[42:, 42:].any()
    assert dice(foreground(image, "auto"), body) > 0.97


def test_ct_body_with_lungs_and_without_couch():
    rng = np.random.default_rng(0)
    torso, shape = cylinder((48, 60), 34, (96, 120, 20)), (96, 120, 20)
    image = np.full(shape, -1000.0)
    image[torso] = 40
    lungs = cylinder((34, 62), 10, shape) | cylinder((62, 62), 10, shape)  # open at both ends of the volume
    image[lungs] = -850
    image[8:88, 12:16] = 200
    image += rng.normal(0, 20, shape)
    mask = foreground(image, "body")
    assert mask[lungs].all()
    assert dice(mask, torso) > 0.99
    assert not mask[:, :20].any()


def test_ct_outside_the_field_of_view():
    image = np.where(cylinder(), 40.0, -1000.0)
    image[~cylinder(radius=23)] = -3024
    assert dice(foreground(image, "body"), cylinder()) == 1


def test_both_legs_count():
    legs = cylinder((12, 24), 9) | cylinder((37, 24), 7)
    np.testing.assert_array_equal(foreground(np.where(legs, 50.0, -1000.0), "body"), legs)


def test_pet_uptake_with_cold_centre():
    rng = np.random.default_rng(0)
    body = cylinder()
    image = body * rng.gamma(4, 0.15, body.shape) + ~body * rng.gamma(1, 0.01, body.shape)
    image[cylinder(radius=5)] = 0.02
    mask = foreground(image, "uptake")
    assert dice(mask, body) > 0.97
    assert mask[cylinder(radius=12)].all()


def uncorrected(brain=0.0, seed=0):
    """PET without attenuation correction: bright skin, dark middle, streaks in air beside a brain of that height."""
    rng = np.random.default_rng(seed)
    body, hot = cylinder(), ball(radius=6)
    x, y = np.indices(body.shape[:2]) - 24
    image = body * (60 + 0.6 * np.hypot(x, y)[..., None] ** 2)
    image[hot] += brain
    streaks = 0.005 * brain * np.exp(-((np.arange(body.shape[2]) - 12) ** 2) / 50)
    return body, (image + ~body * (3 + streaks)) * rng.gamma(9, 1 / 9, body.shape)


@pytest.mark.parametrize("brain", [0, 500, 3000])
def test_uncorrected_pet_with_and_without_a_bright_organ(brain):
    body, image = uncorrected(brain)
    assert dice(foreground(image, "emission"), body) > 0.95


@pytest.mark.parametrize("brain", [0, 3000])
def test_uncorrected_pet_in_much_air(brain):
    body, image = uncorrected(brain)
    air = np.random.default_rng(1).gamma(9, 0.3, (160, 160, 24))
    air[56:104, 56:104] = image
    mask = foreground(air, "emission")
    assert dice(mask, np.pad(body, ((56, 56), (56, 56), (0, 0)))) > 0.95


def test_uncorrected_pet_with_a_gap_in_the_skin_before_a_dark_heart():
    body, image = uncorrected()
    gap = cylinder(radius=7)
    gap[22:27, 24:] |= cylinder()[22:27, 24:]
    image[gap] = 5
    mask = foreground(image, "emission")
    assert mask[cylinder(radius=7)].all()
    assert dice(mask, body) > 0.93


def test_uncorrected_pet_has_no_unit():
    _, image = uncorrected(500)
    np.testing.assert_array_equal(foreground(image, "emission"), foreground(image * 1e-3, "emission"))


@pytest.mark.parametrize("rule", ["nonzero", "auto", "uptake", "emission"])
def test_nothing_gives_nothing(rule):
    assert not foreground(np.zeros((6, 6, 6)), rule).any()


@pytest.mark.parametrize("rule", ["nonzero", "auto", "uptake", "body", "emission"])
def test_full_and_tiny_volumes(rule):
    for shape in ((1, 1, 1), (2, 3, 1), (9, 9, 9)):
        assert foreground(np.full(shape, 3.0), rule).all()


@real
@pytest.mark.real
@pytest.mark.parametrize("patient", ["STS_002", "STS_008", "STS_014", "STS_042", "STS_048"])
def test_real_mri_body_is_the_ct_body(patient):
    folder = REAL / "sts" / "nifti" / patient
    ct, mri = read_scan(folder / "CT_image.nii.gz"), read_scan(folder / "MR_T1_image.nii.gz")
    body = resample(foreground(ct.array, "body"), ct.grid, mri.grid, order=0, fill=0)
    # The thighs lie differently on the two scanners, so not all of the difference is the mask's.
    assert dice(foreground(mri.array, "auto"), body) > 0.95


@real
@pytest.mark.real
@pytest.mark.parametrize("patient", ["STS_002", "STS_006", "STS_010", "STS_047"])
def test_real_pet_body_is_the_ct_body(patient):
    folder = REAL / "sts" / "nifti" / patient
    ct, pet = read_scan(folder / "CT_image.nii.gz"), read_scan(folder / "PET_image.nii.gz")
    body = resample(foreground(ct.array, "body"), ct.grid, pet.grid, order=0, fill=0)
    assert dice(foreground(pet.array, "uptake"), body) > 0.85


@real
@pytest.mark.real
@pytest.mark.parametrize("scan", ["openms-patient19/flair", "openms-patient19/t1c", "stroke/t1", "stroke/t2"])
def test_real_extracted_brains(scan):
    array = read_scan(REAL / "brain" / f"{scan}.nii.gz").array
    np.testing.assert_array_equal(foreground(array, "auto"), foreground(array, "nonzero"))


@real
@pytest.mark.real
def test_real_torso_has_no_couch_and_no_arms_outside():
    ct = read_scan(REAL / "petct" / "acrin-042" / "ct_on_pet.nii.gz").array
    pet = read_scan(REAL / "petct" / "acrin-042" / "pet_ac_suvbw.nii.gz").array
    nac = read_scan(REAL / "petct" / "acrin-042" / "pet_nac.nii.gz").array
    assert dice(foreground(ct, "body"), foreground(pet, "uptake")) > 0.93
    assert dice(foreground(ct, "body"), foreground(nac, "emission")) > 0.87
