"""Grids: closed forms, and what counts as the same world."""

import numpy as np
import pytest

from medprism.errors import UserError
from medprism.io.grid import Grid, distance, overlap, relation, require_same_space, respaced


def grid(shape=(10, 12, 14), spacing=(1.0, 2.0, 3.0), origin=(-5.0, 7.0, 100.0), turn=0.0):
    c, s = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    affine[:3, 3] = origin
    return Grid(shape, affine)


def test_closed_forms():
    g = grid()
    assert g.spacing == (1.0, 2.0, 3.0)
    np.testing.assert_allclose(g.centre, (-5 + 4.5, 7 + 11, 100 + 19.5))
    np.testing.assert_allclose(g.corners.min(axis=0), (-5.5, 6, 98.5))
    np.testing.assert_allclose(g.corners.max(axis=0), (4.5, 30, 140.5))
    assert g.volume == pytest.approx(10 * 24 * 42)
    assert grid(turn=0.7).spacing == pytest.approx((1.0, 2.0, 3.0))


def test_world_and_voxel_are_inverse():
    g = grid(turn=0.4)
    voxels = np.random.default_rng(0).uniform(-5, 20, (7, 3))
    np.testing.assert_allclose(g.voxel(g.world(voxels)), voxels)


def test_crop_keeps_voxels_where_they_are():
    g = grid(turn=0.4)
    part = g.crop((2, 3, -1), (4, 4, 4))
    np.testing.assert_allclose(part.world(np.array([1, 1, 1])), g.world(np.array([3, 4, 0])))
    assert part.shape == (4, 4, 4)


def test_affine_cannot_be_changed_from_outside():
    affine = np.eye(4)
    g = Grid((2, 2, 2), affine)
    affine[0, 3] = 9
    assert g.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        g.affine[0, 3] = 9


@pytest.mark.parametrize(
    ("affine", "complaint"),
    [
        (np.eye(3), "shape"),
        (np.diag([1, 0, 1, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
        (np.diag([1, np.nan, 1, 1.0]), "NaN"),
        (np.diag([1, 1, 1, 2.0]), "last row"),
    ],
)
def test_unsound_affine(affine, complaint):
    with pytest.raises(ValueError, match=complaint):
        Grid((2, 2, 2), affine)


def test_micron_voxels_are_sound():
    assert Grid((2, 2, 2), np.diag([1e-3, 1e-3, 1e-3, 1])).spacing == pytest.approx((1e-3, 1e-3, 1e-3))


def test_same_grid_under_float_noise():
    a = grid((512, 512, 300), (0.976562, 0.976562, 3.27), (-249.5, -249.5, -800.0), turn=0.3)
    b = Grid(a.shape, a.affine.astype(np.float32))
    assert not np.array_equal(a.affine, b.affine)
    assert relation(a, b) == "same_grid"


def test_a_tenth_of_a_voxel_is_another_grid():
    assert relation(grid(), grid(origin=(-4.9, 7.0, 100.0))) == "same_space"
    assert relation(grid(), grid(origin=(-4.9, 7.0, 100.0)), tolerance_mm=0.2) == "same_grid"


def test_tolerance_scales_with_the_voxel():
    a, b = grid(spacing=(0.1, 0.1, 0.1)), grid(spacing=(0.1, 0.1, 0.1), origin=(-4.98, 7.0, 100.0))
    assert relation(a, b) == "same_space"


def test_other_shape_is_another_grid():
    assert relation(grid(), grid(shape=(10, 12, 15))) == "same_space"


def test_a_part_within_the_whole_is_the_same_space():
    body = grid((200, 200, 300), (4, 4, 3), (-400.0, -400.0, -900.0))
    knee = grid((40, 40, 40), (1, 1, 1), (10.0, 10.0, -880.0), turn=0.5)
    assert relation(body, knee) == relation(knee, body) == "same_space"
    assert overlap(body, knee) == 1


@pytest.mark.parametrize("part", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_overlap_of_shifted_boxes(part):
    a = grid()
    shift = (1 - part) * 42
    assert overlap(a, grid(origin=(-5.0, 7.0, 100.0 + shift))) == pytest.approx(part, abs=1e-9)


def test_apart():
    a, b = grid(), grid(origin=(-5.0, 7.0, 100.0 + 0.6 * 42))
    assert relation(a, b) == "apart"
    assert distance(a, b) == pytest.approx(25.2)
    with pytest.raises(UserError, match=r"t1\.nii and ct\.nii .* 25 mm apart with 38% .*; register"):
        require_same_space(a, b, name_a="t1.nii", name_b="ct.nii")
    assert require_same_space(a, a, name_a="a", name_b="b") == "same_grid"


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (0.7, 5.0, 2.0)])
def test_respaced_covers_the_same_field_of_view(spacing):
    old = grid(turn=0.3)
    new = respaced(old, spacing)
    assert new.spacing == pytest.approx(spacing)
    np.testing.assert_allclose(new.centre, old.centre)
    old_extent, new_extent = np.multiply(old.shape, old.spacing), np.multiply(new.shape, spacing)
    assert (new_extent >= old_extent - 0.01).all()
    assert (new_extent < old_extent + spacing).all()


def test_respaced_to_its_own_spacing_is_itself():
    old = grid((173, 141, 59), (0.9765625, 0.9765625, 3.27), turn=0.3)
    assert relation(respaced(old, old.spacing), old) == "same_grid"


def test_respaced_refuses_nonsense():
    with pytest.raises(ValueError, match="positive"):
        respaced(grid(), (1.0, 0.0, 1.0))
