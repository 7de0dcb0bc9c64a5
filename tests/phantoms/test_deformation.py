import numpy as np
import pytest
from scipy.linalg import expm

from medprism.phantoms.box import Box, smooth_noise
from medprism.phantoms.deformation import compose, flow, jacobian, move

BOX = Box((-40.0, -40.0, -40.0), 2.0, (41, 41, 41))
INNER = (slice(None), *(slice(8, -8),) * 3)


def linear(matrix):
    return (BOX.centres() @ np.asarray(matrix, np.float32).T).T.reshape(3, *BOX.shape).astype(np.float32)


def test_constant_velocity_is_a_translation():
    velocity = np.broadcast_to(np.asarray([3.0, -7.0, 0.5], np.float32)[:, None, None, None], (3, *BOX.shape))
    assert np.allclose(flow(velocity, BOX), velocity, atol=1e-4)


def test_linear_velocity_is_the_matrix_exponential():
    matrix = np.asarray([[0.10, -0.25, 0.0], [0.25, 0.05, 0.02], [0.0, 0.0, -0.15]])
    expected = linear(expm(matrix) - np.eye(3))
    assert np.abs(flow(linear(matrix), BOX) - expected)[INNER].max() < 0.15  # mm, where the field moves by up to 8


@pytest.fixture(scope="module")
def velocity():
    """A random field that falls to zero at the border of the box."""
    taper = np.cos(np.pi / 2 * np.clip(np.abs(BOX.centres()) / 40, 0, 1)).prod(1).reshape(BOX.shape)
    return (6 * taper * smooth_noise(np.random.default_rng(2), BOX, 10.0, 3)).astype(np.float32)


def test_opposite_velocity_is_the_inverse(velocity):
    there, back = flow(velocity, BOX), flow(-velocity, BOX)
    assert np.abs(there).max() > 8
    error = np.abs(compose(there, back, BOX))
    assert error.max() < 1.0  # mm, half a voxel
    assert error.mean() < 0.05


def test_two_halves_make_the_whole(velocity):
    half = flow(velocity / 2, BOX)
    assert np.abs(compose(half, half, BOX) - flow(velocity, BOX)).max() < 0.1


def test_flow_of_a_strong_field_does_not_fold(velocity):
    assert (jacobian(2 * velocity, BOX) < 0).any()  # as a displacement the field itself does fold
    assert jacobian(flow(2 * velocity, BOX), BOX).min() > 0


def test_jacobian_of_a_linear_map():
    matrix = np.diag([0.1, -0.2, 0.5])
    assert jacobian(linear(matrix), BOX) == pytest.approx(1.1 * 0.8 * 1.5, abs=1e-4)


def test_move_adds_the_displacement():
    points = BOX.centres()[::97]
    assert np.allclose(move(points, linear(np.eye(3) * 0.5), BOX), 1.5 * points, atol=1e-3)
