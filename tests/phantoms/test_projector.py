import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import iv, modstruve
from skimage.transform import radon

from medprism.phantoms.projector import Projector

SPACING, SIDE, RADIUS, MU = 4.0, 72, 100.0, 0.0096


@pytest.fixture(scope="module")
def rays():
    return Projector((SIDE, SIDE), SPACING, 72, 12)


@pytest.fixture(scope="module")
def far():
    """Distance (X, Y) of the pixels from the middle."""
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING
    return np.hypot(axis[:, None], axis)


@pytest.fixture(scope="module")
def disk(far):
    return np.clip(0.5 - (far - RADIUS) / SPACING, 0, 1).astype(np.float32)[..., None]


def test_chords_of_a_disk(rays, disk):
    bins = (np.arange(rays.bins) - (rays.bins - 1) / 2) * SPACING
    chords = 2 * np.sqrt(np.maximum(RADIUS**2 - bins**2, 0))
    within = np.abs(bins) < RADIUS - 8
    sinogram = rays.forward(disk)[..., 0]
    error = sinogram[:, within] - chords[within]
    assert np.abs(error).max() < 1.5 * SPACING  # of the pixels at the rim
    assert np.abs(error).mean() < 0.01 * RADIUS
    # nothing is lost between the strips
    assert np.allclose(sinogram.sum(1) * SPACING, disk.sum() * SPACING**2, rtol=1e-5)


def test_agrees_with_scikit_image():
    side = 71  # odd: both turn about the pixel in the middle
    axis = np.arange(side) - side // 2
    image = np.zeros((side, side), np.float32)
    image[15:40, 20:50] = 1
    image[45:60, 30:38] = 3
    image[np.hypot(axis[:, None], axis) > side // 2 - 2] = 0
    ours = Projector((side, side), 1.0, 36)
    sinogram = ours.forward(image[..., None])[..., 0]
    # the columns of skimage's images are our x, its rows run against our y
    theirs = radon(image.astype(float).T[::-1], np.rad2deg(ours.directions()), circle=False).T
    shift = (theirs.shape[1] - ours.bins) // 2
    theirs = np.pad(theirs, ((0, 0), (1, 1)))[:, shift + 1 :][:, : ours.bins]
    # it samples between pixels where we share out areas: the same to the blur of a pixel
    assert np.abs(sinogram - theirs).mean() < 0.02 * theirs.mean()
    assert np.corrcoef(sinogram.ravel(), theirs.ravel())[0, 1] > 0.999


def test_back_is_the_transpose(rays):
    rng = np.random.default_rng(1)
    volume = rng.random((SIDE, SIDE, 3), np.float32)
    sinogram = rng.random((72, rays.bins, 3), np.float32)
    left = float((rays.forward(volume).astype(float) * sinogram).sum())
    right = float((volume.astype(float) * rays.back(sinogram)).sum())
    assert left == pytest.approx(right, rel=1e-5)


def test_directions_are_those_of_the_rows(rays):
    point = np.zeros((SIDE, SIDE, 1), np.float32)
    point[50, 20] = 1
    bins = np.arange(rays.bins) - (rays.bins - 1) / 2
    sinogram = rays.forward(point)[..., 0]
    found = (sinogram * bins).sum(1) / sinogram.sum(1)
    angle = rays.directions()
    middle = (SIDE - 1) / 2
    assert np.allclose(found, (50 - middle) * np.cos(angle) + (20 - middle) * np.sin(angle), atol=0.25)


def test_subsets_must_divide_the_angles():
    with pytest.raises(ValueError, match="subsets"):
        Projector((8, 8), 1.0, 10, 3)


def uncorrected(r):
    """Image at radius r of a disk of activity 1 whose rays lose exp(−μL): the inverse Abel transform of L exp(−μL)."""

    def integrand(angle):
        s = np.sqrt(r**2 + (RADIUS**2 - r**2) * np.sin(angle) ** 2)
        chord = 2 * np.sqrt(RADIUS**2 - s**2)
        falling = np.exp(-MU * chord) * (1 - MU * chord) * 4 * s / chord
        return falling * np.sqrt(RADIUS**2 - r**2) * np.cos(angle) / s

    return quad(integrand, 0, np.pi / 2 - 1e-9)[0] / np.pi


def test_a_cylinder_with_and_without_correction(rays, far, disk):
    through = np.exp(-rays.forward(np.float32(MU) * disk))
    measured = through * rays.forward(disk)
    nothing = np.zeros_like(measured)
    corrected = rays.osem(measured, through, nothing, 4)[..., 0]
    assert np.allclose(corrected[far < 80], 1, atol=0.03)

    # the centre in closed form: (I0 − L0)(k) + k (I0 − L0)'(k), k = 2μR, with the modified Bessel and Struve functions
    k = 2 * MU * RADIUS
    slope = iv(1, k) - modstruve(1, k) - 2 / np.pi
    centre = iv(0, k) - modstruve(0, k) + k * slope
    assert uncorrected(1e-3) == pytest.approx(centre, abs=1e-4)
    image = rays.osem(measured, np.ones_like(measured), nothing, 15)[..., 0]
    assert image[far < 12].mean() == pytest.approx(centre, abs=0.02)
    for r in (40.0, 60.0, 80.0):
        assert image[np.abs(far - r) < 3].mean() == pytest.approx(uncorrected(r), abs=0.03)
    rim = image[np.abs(far - 90) < 5].mean()
    assert rim > 4 * image[far < 12].mean()


def test_scatter_that_is_known_is_taken_away(rays, far, disk):
    line = rays.forward(disk)
    other = np.full_like(line, 60.0)
    image = rays.osem(line + other, np.ones_like(line), other, 4)[..., 0]
    assert np.allclose(image[far < 80], 1, atol=0.04)
    assert image[far > 120].mean() < 0.03
