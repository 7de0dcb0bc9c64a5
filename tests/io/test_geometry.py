"""Resampling: exact on what it must be exact on, and as SimpleITK does it elsewhere."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medprism.io.geometry import Grid, inside, resample, respaced


def rotation(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def grid(shape, spacing, turn=None, centre=(10.0, -20.0, 30.0)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def ramp(g):
    x, y, z = np.moveaxis(g.world(np.moveaxis(np.indices(g.shape), 0, -1)), -1, 0)
    return (0.3 * x - 0.2 * y + 0.5 * z + 7).astype(np.float32)


def as_sitk(array, g):
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(g.spacing)
    image.SetDirection((g.affine[:3, :3] / g.spacing).ravel())
    image.SetOrigin(g.affine[:3, 3])
    return image


def test_same_grid_is_the_identity():
    g = grid((5, 6, 7), (1, 2, 3), rotation(np.random.default_rng(0)))
    array = np.random.default_rng(0).normal(size=g.shape).astype(np.float32)
    noisy = Grid(g.shape, g.affine.astype(np.float32))
    for order in (0, 1, 3):
        out = resample(array, g, noisy, order=order)
        np.testing.assert_array_equal(out, array)
        assert out is not array


def test_whole_steps_are_copied_exactly():
    g = grid((9, 9, 9), (0.3, 0.7, 1.1), rotation(np.random.default_rng(1)))
    array = np.random.default_rng(0).normal(size=g.shape).astype(np.float32)
    for order in (0, 1):
        out = resample(array, g, g.crop((2, 1, 3), (4, 5, 6)), order=order)
        np.testing.assert_array_equal(out, array[2:6, 1:6, 3:9])


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 2.0, 3.0), (0.5, 0.7, 0.9)])
def test_linear_ramp_is_exact(order, oblique, spacing):
    rng = np.random.default_rng(2)
    turn = rotation(rng)
    source = grid((40, 36, 30), (1.1, 1.2, 1.5), turn)
    # Well inside, where neither the blur nor the spline reaches the edge.
    target = grid((6, 6, 5), spacing, turn if not oblique else rotation(rng), centre=(11.0, -20.5, 30.3))
    np.testing.assert_allclose(resample(ramp(source), source, target, order=order), ramp(target), atol=2e-3)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("order", [0, 1])
def test_agrees_with_simpleitk(oblique, order):
    rng = np.random.default_rng(3)
    turn = rotation(rng)
    source = grid((20, 18, 16), (1.1, 1.2, 1.5), turn)
    target = grid((24, 26, 28), (0.9, 0.8, 0.7), rotation(rng) if oblique else turn, centre=(11.0, -20.5, 30.3))
    array = rng.normal(size=source.shape).astype(np.float32)
    ours = resample(array, source, target, order=order, fill=-3)
    how = sitk.sitkNearestNeighbor if order == 0 else sitk.sitkLinear
    blank = as_sitk(np.zeros(target.shape, np.float32), target)
    # SimpleITK may blur at turned grids neither: the target is finer, so there is nothing to blur.
    theirs = sitk.GetArrayFromImage(sitk.Resample(as_sitk(array, source), blank, sitk.Transform(), how, -3.0)).T
    if oblique:
        same = np.isclose(ours, theirs, atol=1e-3)
        assert same.mean() > 0.999  # rounding of ties at voxel borders
    else:
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("oblique", [False, True])
def test_outside_the_field_of_view_is_fill(oblique):
    turn = rotation(np.random.default_rng(4)) if oblique else np.eye(3)
    source, target = grid((8, 8, 8), (1, 1, 2), turn), grid((14, 13, 12), (1.3, 0.9, 1.7))
    within = inside(source, target)
    voxels = source.voxel(target.world(np.moveaxis(np.indices(target.shape), 0, -1)))
    expected = ((voxels >= -0.5) & (voxels <= np.array(source.shape) - 0.5)).all(axis=-1)
    np.testing.assert_array_equal(within, expected)
    assert 0 < within.mean() < 1
    out = resample(np.full(source.shape, 5.0, np.float32), source, target, order=1, fill=-1024)
    np.testing.assert_allclose(out, np.where(within, 5, -1024), atol=1e-4)


def test_labels_keep_their_set_and_type():
    rng = np.random.default_rng(5)
    source = grid((30, 30, 20), (1, 1, 2))
    labels = rng.choice(np.array([0, 3, 7, 300], np.uint16), source.shape)
    for turn in (None, rotation(rng)):
        out = resample(labels, source, grid((16, 16, 16), (2.5, 2.5, 2.5), turn), order=0)
        assert out.dtype == np.uint16
        assert set(np.unique(out)) <= {0, 3, 7, 300}
        mask = resample(labels == 7, source, grid((16, 16, 16), (2.5, 2.5, 2.5), turn), order=0)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, out == 7)


def test_images_become_float32():
    source = grid((6, 6, 6), (1, 1, 1))
    counts = np.arange(216, dtype=np.int16).reshape(6, 6, 6)
    assert resample(counts, source, respaced(source, (2, 2, 2)), order=1).dtype == np.float32
    assert resample(counts, source, source, order=1).dtype == np.float32


@pytest.mark.parametrize("oblique", [False, True])
def test_down_sampling_does_not_alias(oblique):
    source = grid((60, 60, 60), (1, 1, 1))
    stripes = np.where(np.indices(source.shape)[0] % 2, 1.0, -1.0).astype(np.float32)
    turn = np.array([[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1]]) if oblique else None
    target = grid((12, 12, 12), (3, 3, 3), turn)
    assert np.abs(resample(stripes, source, target, order=1)).max() < 0.01
    assert np.abs(resample(stripes, source, target, order=0)).min() == 1


def test_blur_adds_the_variance_that_the_source_lacks():
    source = grid((61, 61, 61), (1, 1, 1))
    point = np.zeros(source.shape, np.float32)
    point[30, 30, 30] = 1
    # Every second voxel from the first and from the second on: together they sample the blur at every voxel.
    affine = source.affine @ np.diag([2, 2, 2, 1])
    seen = np.zeros(61)
    for start in (0, 1):
        affine[:3, 3] = source.world(np.array([start, 30, 30]))
        line = Grid((30, 1, 1), affine)
        seen[start : start + 60 : 2] = resample(point, source, line, order=1).ravel()
    variance = (seen * (np.arange(61) - 30.0) ** 2).sum() / seen.sum()
    assert variance == pytest.approx((2**2 - 1) / (8 * np.log(2)), rel=0.02)


def test_up_then_down_gives_a_smooth_image_back():
    source = grid((20, 20, 20), (2, 2, 2))
    x, y, z = np.indices(source.shape) / 19
    smooth = np.sin(3 * x) + np.cos(2 * y) * z
    fine = respaced(source, (1, 1, 1))
    back = resample(resample(smooth, source, fine, order=3), fine, source, order=1)
    np.testing.assert_allclose(back[2:-2, 2:-2, 2:-2], smooth[2:-2, 2:-2, 2:-2], atol=0.02)


def test_one_slice_can_be_resampled():
    source = grid((10, 10, 1), (1, 1, 5))
    out = resample(np.ones(source.shape, np.float32), source, respaced(source, (2, 2, 1)), order=1)
    assert out.shape == (5, 5, 5)
    np.testing.assert_array_equal(out, 1)


def test_wrong_use_is_refused():
    g = grid((4, 4, 4), (1, 1, 1))
    with pytest.raises(ValueError, match="shape"):
        resample(np.zeros((4, 4, 5)), g, g)
    with pytest.raises(ValueError, match="order"):
        resample(np.zeros((4, 4, 4)), g, g, order=2)
