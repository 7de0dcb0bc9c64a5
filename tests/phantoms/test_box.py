import numpy as np
import pytest

from medprism.phantoms.box import Box, block_mean, head_box, sample, smooth_noise


@pytest.mark.parametrize(("spacing", "shape"), [(1, (182, 218, 182)), (2, (91, 109, 91)), (3, (61, 73, 61))])
def test_head_box_covers_the_mni_field_of_view(spacing, shape):
    box = head_box(spacing)
    assert box.shape == shape
    centre = np.asarray(box.origin) + (np.asarray(shape) - 1) * spacing / 2
    assert centre == pytest.approx((-0.5, -17.5, 18.5))


def test_head_box_at_1_mm_is_the_usual_grid():
    assert head_box(1).affine[:3, 3] == pytest.approx((-91, -126, -72))


def test_sample_is_exact_for_linear_functions_and_constant_outside():
    box = Box((-3.0, 2.0, 5.0), 0.5, (9, 7, 6))
    points = box.centres()
    volume = (points @ [1.0, -2.0, 0.5] + 3).astype(np.float32).reshape(1, *box.shape)
    rng = np.random.default_rng(0)
    inside = (rng.uniform(0, 1, (200, 3)) * (np.asarray(box.shape) - 1) * 0.5 + box.origin).astype(np.float32)
    assert sample(volume, box, inside)[0] == pytest.approx(inside @ [1.0, -2.0, 0.5] + 3, abs=1e-4)
    far = np.asarray([[-100.0, 2.0, 5.0]], np.float32)
    assert sample(volume, box, far)[0, 0] == pytest.approx(volume[0, 0, 0, 0], abs=1e-5)


def test_finer_voxels_average_to_the_coarse_ones():
    box = Box((1.0, 2.0, 3.0), 3.0, (4, 5, 6))
    fine = box.finer(3)
    assert fine.shape == (12, 15, 18)
    for axis in range(3):
        centres = fine.centres()[:, axis].reshape(fine.shape)
        assert block_mean(centres, 3).ravel() == pytest.approx(box.centres()[:, axis], abs=1e-4)


@pytest.mark.parametrize("scale", [4.0, 9.0])
def test_smooth_noise_has_unit_variance_and_the_wanted_smoothness(scale):
    noise = smooth_noise(np.random.default_rng(1), Box((0, 0, 0), 2.0, (64, 64, 64)), scale, 4)
    assert noise.std() == pytest.approx(1, abs=0.12)
    # white noise under a Gaussian kernel of width s has the correlation exp(−d² / 4 s²)
    d = round(scale / 2)
    correlation = (noise[:, d:] * noise[:, :-d]).mean() / noise.var()
    assert correlation == pytest.approx(np.exp(-((2 * d) ** 2) / (4 * scale**2)), abs=0.06)
