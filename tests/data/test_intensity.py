"""Normalisers: invertible, JSON-safe, closed forms, and clear refusals."""

import json

import numpy as np
import pytest

from medprism.data.intensity import DEFAULT_NORMALISERS, Normaliser, Scale
from medprism.errors import UserError

KINDS = {
    "zscore": Normaliser("zscore", "nonzero", "a.u.", clip=(-5.0, 5.0)),
    "percentile": Normaliser("percentile", "nonzero", "a.u.", clip=(-1.0, 2.0), limits=(1.0, 99.0)),
    "median": Normaliser("median", "nonzero", "a.u.", clip=(0.0, 8.0)),
    "window": Normaliser("window", "nonzero", "HU", clip=(-2.0, 2.0), limits=(-160.0, 240.0)),
    "suv": Normaliser("suv", "nonzero", "SUV", clip=(0.0, 8.0), limits=(0.0, 20.0)),
}


def body(mean=40.0, std=9.0, seed=0):
    """A 16³ image of noise with zeros around."""
    image = np.zeros((16, 16, 16), np.float32)
    image[3:13, 3:13, 3:13] = np.random.default_rng(seed).normal(mean, std, (10, 10, 10))
    return image


def test_every_modality_has_one():
    assert set(DEFAULT_NORMALISERS) == {"t1n", "t1c", "t2w", "t2f", "pd", "mra", "dwi", "adc", "ct", "pet", "nac"}


@pytest.mark.parametrize("kind", KINDS)
def test_invert_is_exact_within_the_clip(kind):
    image = body(8, 2)
    scale = KINDS[kind].fit(image, image != 0)
    normal = scale.apply(image)
    assert normal.dtype == scale.invert(normal).dtype == np.float32
    kept = (normal > scale.low) & (normal < scale.high)
    assert kept.mean() > 0.2
    # Two roundings of float32 each way, of numbers up to the offset.
    tolerance = 4 * np.finfo(np.float32).eps * (np.abs(image).max() + abs(scale.offset))
    np.testing.assert_allclose(scale.invert(normal)[kept], image[kept], atol=tolerance, rtol=0)
    np.testing.assert_allclose(scale.apply(scale.invert(normal)), normal, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_clip_holds_everywhere(kind):
    image = body()
    scale = KINDS[kind].fit(image, image != 0)
    extreme = scale.apply(np.array([-1e9, 1e9]))
    np.testing.assert_array_equal(extreme, KINDS[kind].clip)


def test_zscore_has_zero_mean_and_unit_deviation_over_the_foreground_only():
    image = body()
    scale = KINDS["zscore"].fit(image, image != 0)
    normal = scale.apply(image)[image != 0]
    assert normal.mean() == pytest.approx(0, abs=1e-5)
    assert normal.std() == pytest.approx(1, abs=1e-5)


def test_zscore_of_large_float32_values_is_accurate():
    image = np.full((64, 64, 64), 1e6, np.float32)
    image[::2] += 100
    scale = KINDS["zscore"].fit(image, np.ones(image.shape, bool))
    assert (scale.offset, scale.scale) == pytest.approx((1e6 + 50, 50), abs=1e-6)


def test_percentiles_become_0_and_1():
    image = np.arange(1, 1002, dtype=np.float32).reshape(7, 11, 13)
    scale = KINDS["percentile"].fit(image, image > 0)
    np.testing.assert_allclose(scale.apply(np.array([11.0, 991.0])), (0, 1), atol=1e-6)


def test_median_follows_no_bright_organ():
    image = body(130, 40)
    usual = KINDS["median"].fit(image, image != 0)
    assert usual.apply(np.array([0.0, np.median(image[image != 0])])).tolist() == pytest.approx([0, 0.25])
    image[4:8, 4:8, 4:8] = 4000  # a brain: 6 % of the foreground
    assert KINDS["median"].fit(image, image != 0).scale == pytest.approx(usual.scale, rel=0.05)


def test_window_and_suv_are_the_same_for_every_scan():
    for kind, low, high in (("window", -160, 240), ("suv", 0, 20)):
        scales = [KINDS[kind].fit(body(mean), np.ones((16, 16, 16), bool)) for mean in (5, 30)]
        assert scales[0] == scales[1]
        np.testing.assert_allclose(scales[0].invert(np.array(KINDS[kind].clip)), (low, high), atol=1e-4)


def test_values_the_design_names():
    ones = np.ones((4, 4, 4), bool)
    assert DEFAULT_NORMALISERS["ct"].fit(body()[:4, :4, :4], ones) == Scale(0.0, 500.0, -2.0, 2.0)
    assert DEFAULT_NORMALISERS["pet"].fit(body()[:4, :4, :4], ones) == Scale(0.0, 2.5, 0.0, 8.0)


def test_scale_of_the_scan_does_not_matter():
    image = body()
    for kind in ("zscore", "percentile", "median"):
        one = KINDS[kind].fit(image, image != 0).apply(image)
        other = KINDS[kind].fit(image * 1000, image != 0).apply(image * 1000)
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("normaliser", [*KINDS.values(), *DEFAULT_NORMALISERS.values()])
def test_json_round_trip(normaliser):
    assert Normaliser.from_dict(json.loads(json.dumps(normaliser.to_dict()))) == normaliser
    image = body(3, 1)
    scale = normaliser.fit(image, image != 0)
    assert Scale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale
    np.testing.assert_array_equal(Scale.from_dict(scale.to_dict()).apply(image), scale.apply(image))


@pytest.mark.parametrize("kind", ["zscore", "percentile"])
@pytest.mark.parametrize("value", [7.0, 0.1, -1e4])
def test_constant_foreground(kind, value):
    image = np.full((5, 5, 5), value, np.float32)
    with pytest.raises(UserError, match=r"expected contrast in the foreground of sub-1/t1\.nii, got .*; leave it out"):
        KINDS[kind].fit(image, image != 0, name="sub-1/t1.nii")


@pytest.mark.parametrize("kind", KINDS)
def test_empty_foreground(kind):
    image = np.zeros((5, 5, 5), np.float32)
    with pytest.raises(UserError, match=r"foreground in sub-1/t1\.nii, got none .*from 0 to 0"):
        KINDS[kind].foreground_mask(image, name="sub-1/t1.nii")
    with pytest.raises(UserError, match=r"foreground in sub-1/t1\.nii, got an empty mask"):
        KINDS[kind].fit(image, image != 0, name="sub-1/t1.nii")


def test_modality_mistaken_for_another_is_told_by_its_foreground():
    with pytest.raises(UserError, match=r"expected body foreground in a\.nii.*check its modality and unit \(HU\)"):
        DEFAULT_NORMALISERS["ct"].foreground_mask(np.full((5, 5, 5), -1000.0), name="a.nii")


def test_pet_in_becquerel():
    image = body(5000, 900)
    with pytest.raises(UserError, match=r"expected SUV in a\.nii, got a median of .*Bq/mL"):
        DEFAULT_NORMALISERS["pet"].fit(image, image != 0, name="a.nii")


@pytest.mark.parametrize("wrong", [(0, 0, 0, 1), (0, -1, 0, 1), (np.nan, 1, 0, 1), (0, np.inf, 0, 1), (0, 1, 1, 1)])
def test_senseless_scale(wrong):
    with pytest.raises(ValueError, match="scale > 0"):
        Scale(*wrong)
