import itertools

import numpy as np
import pytest

from medprism.data.turns import Turn

AFFINE = np.array([[1.2, 0.1, 0, -30], [-0.1, 0.9, 0.2, 12], [0, -0.2, 2.5, 7], [0, 0, 0, 1.0]])


def world(shape):
    """(3, X, Y, Z): the place of each voxel in the world, mm."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.einsum("ij,jxyz->ixyz", AFFINE[:3, :3], voxels) + AFFINE[:3, 3, None, None, None]


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_every_voxel_keeps_its_place_in_the_world(flips, quarters):
    shape = (4, 4, 3) if quarters else (4, 5, 3)
    turn = Turn(flips, quarters)
    turned, affine = turn(world(shape)), turn.affine(AFFINE, shape)
    voxels = np.stack(np.meshgrid(*map(np.arange, turned.shape[1:]), indexing="ij"))
    expected = np.einsum("ij,jxyz->ixyz", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]
    assert np.allclose(turned, expected, atol=1e-12)


def test_no_turn_is_the_identity_and_four_quarters_too():
    volume = np.random.default_rng(0).random((2, 4, 4, 3))
    assert np.array_equal(Turn()(volume), volume)
    assert np.array_equal(Turn().affine(AFFINE, (4, 4, 3)), AFFINE)
    quarter = Turn(quarters=1)
    turned, affine = volume, AFFINE
    for _ in range(4):
        turned, affine = quarter(turned), quarter.affine(affine, (4, 4, 3))
    assert np.array_equal(turned, volume)
    assert np.allclose(affine, AFFINE)


def test_one_quarter_moves_x_towards_y_and_leaves_z():
    volume = np.zeros((5, 5, 5))
    volume[4, 2, 1] = 1  # on the +X side of the centre
    assert np.argwhere(Turn(quarters=1)(volume)).tolist() == [[2, 4, 1]]  # np.rot90: first axis towards the second
