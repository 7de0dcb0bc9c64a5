import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from medprism.evaluation.metrics import PSNR_CAP, mae, mse, nmse, psnr, ssim, ssim_map


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(12, 13, 11)).astype(np.float32)
    return truth, (truth + 0.3 * rng.normal(size=truth.shape)).astype(np.float32)


def test_constant_offset_has_closed_forms():
    truth = np.full(50, 2.0, np.float32)
    output = truth + 0.5
    assert mae(truth, output) == pytest.approx(0.5)
    assert mse(truth, output) == pytest.approx(0.25)
    assert nmse(truth, output) == pytest.approx(0.25 / 4)
    assert psnr(truth, output, 5.0) == pytest.approx(10 * np.log10(25 / 0.25))


def test_perfect_copy_is_capped(pair):
    truth, _ = pair
    assert psnr(truth, truth, 1.0) == PSNR_CAP
    assert nmse(truth, truth) == mae(truth, truth) == 0
    assert ssim(ssim_map(truth, truth, 5.0)) == pytest.approx(1)


def test_same_as_scikit_image(pair):
    truth, output = pair
    assert mse(truth, output) == pytest.approx(mean_squared_error(truth, output), rel=1e-6)
    assert psnr(truth, output, 7.0) == pytest.approx(peak_signal_noise_ratio(truth, output, data_range=7.0), rel=1e-6)
    expected = structural_similarity(truth.astype(float), output.astype(float), data_range=7.0)
    assert ssim(ssim_map(truth, output, 7.0)) == pytest.approx(expected, abs=1e-5)


def test_ssim_over_a_mask_is_the_mean_of_its_voxels(pair):
    truth, output = pair
    similarity = ssim_map(truth, output, 7.0)
    mask = np.zeros(truth.shape, bool)
    mask[4, 5, 6] = mask[7, 7, 7] = True
    assert ssim(similarity, mask) == pytest.approx((similarity[4, 5, 6] + similarity[7, 7, 7]) / 2)


def test_ssim_window_fits_a_thin_volume():
    rng = np.random.default_rng(1)
    truth, output = rng.normal(size=(2, 20, 20, 4))
    expected = structural_similarity(truth, output, data_range=6.0, win_size=3)
    assert ssim(ssim_map(truth, output, 6.0)) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_scored_is_nan(pair):
    truth, output = pair
    nothing = truth[:0, 0, 0]
    assert np.isnan(
        [mae(nothing, nothing), mse(nothing, nothing), nmse(nothing, nothing), psnr(nothing, nothing, 1)]
    ).all()
    assert np.isnan(psnr(truth, output, 0.0))
    assert np.isnan(ssim(ssim_map(truth, output, 0.0)))
    assert np.isnan(ssim(ssim_map(truth, output, 1.0), np.zeros(truth.shape, bool)))
