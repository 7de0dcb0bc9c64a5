"""Intensity augmentation: what it touches, what it depends on, what it does."""

import numpy as np
import pytest

from medprism.data.intensity_change import IntensityChange
from medprism.data.patches import PatchDataset
from tests.data.test_patches import Ramp

NAMES = ("t1n", None, "ct")


def scans(seed=0):
    return np.random.default_rng(seed).normal(size=(3, 8, 9, 10)).astype(np.float32)


def changed(probability=1.0, names=NAMES, seed=0, key=(3, 5), images=None):
    images = scans() if images is None else images.copy()
    IntensityChange(probability)(images, names, seed, key)
    return images


def test_absent_scans_are_left_alone():
    given = scans()
    given[1] = np.nan
    made = changed(images=given)
    assert made.dtype == np.float32
    assert np.isnan(made[1]).all()
    assert np.isfinite(made[[0, 2]]).all()
    assert not np.allclose(made[[0, 2]], given[[0, 2]])


def test_it_is_a_function_of_seed_and_key():
    first = changed()
    changed(seed=4)  # calls in between change nothing
    np.random.seed(1)
    assert np.array_equal(changed(), first)
    for other in (changed(seed=1), changed(key=(3, 6)), changed(key=(4, 5))):
        assert not np.allclose(other[0], first[0])
    same = IntensityChange(1.0)
    for _ in range(2):
        again = scans()
        same(again, NAMES, 0, (3, 5))
        assert np.array_equal(again, first)


def test_each_scan_has_its_own_draws_wherever_it_stands():
    images = np.repeat(scans()[:1], 3, axis=0)
    made = changed(names=("t1n", "t2w", "ct"), images=images)
    assert not np.allclose(made[0], made[1])
    turned = changed(names=("ct", "t1n", "t2w"), images=images)
    assert np.array_equal(turned, made[[2, 0, 1]])


def test_never_and_sometimes():
    assert np.array_equal(changed(0.0), scans())
    same = [np.array_equal(changed(0.5, key=(epoch, 0))[0], scans()[0]) for epoch in range(200)]
    assert np.mean(same) == pytest.approx(0.5**4, abs=0.07)  # none of the four


def test_changes_are_mild():
    """A scan stays what it is: normalised intensities move by tenths."""
    given = np.zeros((1, 16, 16, 16), np.float32)
    given[:, 4:12, 4:12] = 3
    for epoch in range(20):
        made = changed(names=("ct",), key=(epoch, 0), images=given)
        assert np.corrcoef(made.ravel(), given.ravel())[0, 1] > 0.95
        assert abs(float(made.mean() - given.mean())) < 0.5


def test_crops_are_changed_and_the_subject_is_not():
    entry = Ramp("sub-a", present=(True, False, True))
    entry.modalities = ("t1n", "t2w", "ct")
    plain = PatchDataset([entry], (8, 8, 6), seed=2)
    loud = PatchDataset([entry], (8, 8, 6), seed=2, intensity=IntensityChange(1.0))
    before = entry.images((0, 0, 0), entry.shape)
    for key in ((0, 0), (0, 1), (5, 1)):
        one, other = plain[key], loud[key]
        assert one.affine.equal(other.affine)
        assert one.foreground.equal(other.foreground)
        assert one.images[1].equal(other.images[1])
        assert not one.images[0].allclose(other.images[0])
        assert loud[key].images.equal(other.images)
    assert not loud[0, 1].images[0].allclose(loud[1, 1].images[0])
    assert np.array_equal(entry.images((0, 0, 0), entry.shape), before)
