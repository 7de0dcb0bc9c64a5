import numpy as np
import pytest

from medprism.data.intensity import Scale
from medprism.evaluation.protocols import PAPER_THRESHOLD, paper, strict, with_air

SHAPE = (32, 30, 28)


@pytest.fixture
def scene():
    """A head in dark air: truth, a fair output for it, the source's foreground."""
    rng = np.random.default_rng(0)
    foreground = np.zeros(SHAPE, bool)
    foreground[9:-9, 9:-9, 9:-9] = True
    truth = np.where(foreground, rng.normal(size=SHAPE), -4.0).astype(np.float32)
    output = (truth + 0.5 * rng.normal(size=SHAPE)).astype(np.float32)
    return truth, output, foreground


def test_strict_closed_form(scene):
    truth, _, foreground = scene
    output = truth + np.float32(0.25)
    scores = strict(truth, output, foreground=foreground)
    spread = float(np.ptp(truth))
    for region in ("foreground", "volume"):
        assert scores[region, "mae"] == pytest.approx(0.25, abs=1e-6)
        assert scores[region, "psnr"] == pytest.approx(20 * np.log10(spread / 0.25), abs=1e-4)
    assert scores["foreground", "nmse"] == pytest.approx(0.0625 / np.mean(truth[foreground] ** 2), rel=1e-4)


def test_strict_foreground_does_not_depend_on_the_target_outside_it(scene):
    truth, output, foreground = scene
    moved = truth.copy()
    moved[~foreground] = np.random.default_rng(1).permutation(
        np.where(np.arange((~foreground).sum()) % 2, truth[~foreground], truth[foreground].mean())
    )
    moved[0, 0, 0] = truth.min()  # the range stays
    before = strict(truth, output, foreground=foreground)
    after = strict(moved, output, foreground=foreground)
    for metric in ("psnr", "nmse", "mae"):
        assert after["foreground", metric] == before["foreground", metric]
        assert after["volume", metric] != before["volume", metric]


def test_strict_punishes_the_background_that_paper_copies(scene):
    truth, output, foreground = scene
    painted = np.where(foreground, output, truth + 3).astype(np.float32)
    strictly = [strict(truth, x, foreground=foreground) for x in (output, painted)]
    assert strictly[1]["volume", "psnr"] < strictly[0]["volume", "psnr"] - 6
    assert strictly[1]["foreground", "psnr"] == strictly[0]["foreground", "psnr"]


def test_paper_is_kinder_than_strict_on_the_same_output(scene):
    truth, output, foreground = scene
    strictly = strict(truth, output, foreground=foreground)
    kindly = paper(truth[None], output[None])[0]
    assert kindly["volume", "psnr"] > strictly["volume", "psnr"]
    assert kindly["volume", "ssim"] > strictly["volume", "ssim"]


def test_paper_reads_nothing_of_the_output_in_the_background(scene):
    """The leak, shown: an output may say anything where the target is dark (moments kept, as it is standardised)."""
    truth, output, _ = scene
    dark = (truth - truth.mean()) / truth.std() < PAPER_THRESHOLD
    shuffled = output.copy()
    shuffled[dark] = np.random.default_rng(2).permutation(output[dark])
    assert paper(truth[None], shuffled[None])[0] == pytest.approx(paper(truth[None], output[None])[0], rel=1e-5)


def test_paper_undoes_any_affine_map_of_the_output(scene):
    truth, output, _ = scene
    assert paper(truth[None], 7 * output[None] - 3)[0] == pytest.approx(paper(truth[None], output[None])[0], rel=1e-4)


def test_air_round_an_extracted_brain_is_dark_for_the_paper():
    rng = np.random.default_rng(3)
    foreground = np.zeros(SHAPE, bool)
    foreground[7:-7, 7:-7, 7:-7] = True
    raw = np.where(foreground, 300 + 60 * rng.normal(size=SHAPE), 0.0)
    scale = Scale(300.0, 60.0, -5, 5)
    cached = np.where(foreground, scale.apply(raw), 0).astype(np.float32)
    restored = with_air(cached, foreground, scale)
    np.testing.assert_allclose(scale.invert(restored), raw, atol=1e-2)
    z = (restored - restored.mean()) / restored.std()
    np.testing.assert_array_equal(z >= PAPER_THRESHOLD, foreground)


def test_physical_error_is_the_normalised_one_times_the_scale(scene):
    truth, output, foreground = scene
    scale = Scale(-200.0, 500.0, -5, 5)
    scores = strict(truth, output, foreground=foreground, scale=scale, unit="HU")
    for region in ("foreground", "volume"):
        assert scores[region, "mae_hu"] == pytest.approx(500 * scores[region, "mae"], rel=1e-4)


def test_empty_foreground_and_flat_truth_are_nan(scene):
    truth, output, foreground = scene
    empty = strict(truth, output, foreground=np.zeros(SHAPE, bool))
    assert all(np.isnan(value) for (region, _), value in empty.items() if region == "foreground")
    flat = strict(np.ones_like(truth), output, foreground=foreground)
    assert np.isnan(flat["volume", "psnr"])
    assert np.isnan(flat["volume", "ssim"])
