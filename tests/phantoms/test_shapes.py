import numpy as np
import pytest

from medprism.phantoms.shapes import Both, Ellipsoid, Field, Grown, Joined, Trunk, Tube, beyond, but, filled


def grid(side=60.0, spacing=2.0):
    axis = np.arange(-side, side + spacing / 2, spacing, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))


def volume(shape, spacing=2.0):
    return float(filled(shape, grid(spacing=spacing), spacing).sum()) * spacing**3


def test_distance_to_a_sphere_is_exact():
    points = grid(spacing=7.0)
    ball = Ellipsoid((3, -4, 5), (20, 20, 20), (30, 40, 50))
    expected = np.linalg.norm(points - np.array([3, -4, 5]).reshape(3, 1, 1, 1), axis=0) - 20
    assert np.allclose(ball.distance(points), expected, atol=1e-3)


@pytest.mark.parametrize("spacing", [2.0, 4.0, 6.0])
def test_volumes_hold_on_any_grid(spacing):
    egg = Ellipsoid((1, 2, 3), (20, 30, 25), (20, 0, 70))
    assert volume(egg, spacing) == pytest.approx(4 / 3 * np.pi * 20 * 30 * 25, rel=0.02)
    rod = Tube([(-30, 0, 0), (30, 0, 0)], (9, 9))
    assert volume(rod, spacing) == pytest.approx(np.pi * 81 * (60 + 12), rel=0.07)


def test_a_tube_thinner_than_a_voxel_fills_its_cross_section():
    thin = Tube([(-40, 0.7, 1.1), (40, 0.7, 1.1)], (1.5, 1.5))
    assert volume(thin, 4.0) == pytest.approx(np.pi * 2.25 * 80, rel=0.35)


def test_a_superquadric_lies_between_ellipsoid_and_box():
    round_, square = (volume(Ellipsoid((0, 0, 0), (30, 20, 25), power=p)) for p in (2, 6))
    assert round_ < square < 8 * 30 * 20 * 25


def test_bounds_hold_all_that_is_inside():
    shapes = [
        Ellipsoid((5, 0, 0), (20, 35, 10), (10, 50, 30)),
        Tube([(-20, 0, 0), (10, 20, 5), (20, 0, 30)], (3, 9, 5)),
        Trunk([(-30, 20, 10, 5), (0, 25, 20, 0), (40, 10, 10, -5)]),
        Grown(Ellipsoid((0, 0, 0), (20, 10, 10)), 6.0),
        Joined([Ellipsoid((-12, 0, 0), (15, 10, 10)), Ellipsoid((12, 0, 0), (15, 10, 10))], 12.0),
        Both([Ellipsoid((0, 0, 0), (30, 30, 30)), Ellipsoid((20, 0, 0), (30, 30, 30))]),
    ]
    points = grid()
    for shape in shapes:
        low, high = (np.asarray(corner).reshape(3, 1) for corner in shape.bounds)
        inside = points[:, shape.distance(points) < 0]
        assert inside.size
        assert (inside >= low - 0.1).all()
        assert (inside <= high + 0.1).all()


def test_sets_and_growth():
    points = grid(spacing=5.0)
    a, b = Ellipsoid((-10, 0, 0), (20, 20, 20)), Ellipsoid((10, 0, 0), (20, 20, 20))
    in_a, in_b = a.distance(points) < 0, b.distance(points) < 0
    assert np.array_equal(Both([a, b]).distance(points) < 0, in_a & in_b)
    assert np.array_equal(Joined([a, b]).distance(points) < 0, in_a | in_b)
    assert np.array_equal(Both([a, but(b)]).distance(points) < 0, in_a & (b.distance(points) > 0))
    blended = Joined([a, b], 10.0).distance(points) < 0
    assert (blended >= (in_a | in_b)).all()
    assert blended.sum() > (in_a | in_b).sum()
    assert np.allclose(Grown(a, 3.0).distance(points), a.distance(points) - 3, atol=1e-5)
    assert np.allclose(Grown(a, lambda p: p[0] * 0 + 3).distance(points), a.distance(points) - 3, atol=1e-5)
    assert np.array_equal(beyond(2, 10.0).distance(points) < 0, points[2] > 10)
    assert np.array_equal(Field(a.distance).distance(points), a.distance(points))


def test_a_trunk_has_the_width_of_its_rows():
    trunk = Trunk([(-40, 20, 10, 5), (0, 30, 15, 0), (40, 20, 10, 5)], power=2.0)
    at = np.array([[30, 0, 0], [0, 15, 0], [20, 5, -40], [0, 15, 40], [0, 0, 50]], np.float32).T
    assert np.allclose(trunk.distance(at), [0, 0, 0, 0, 10], atol=0.3)
