"""Axis order, against nibabel's."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from medprism.io.orientation import from_ras, to_ras


@pytest.mark.parametrize("tilt", [0.0, 0.35])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_as_nibabel_does_it(order, tilt):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3, 4, 5))
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(tilt) * cross + (1 - np.cos(tilt)) * cross @ cross
    for signs in product((1, -1), repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.eye(3)[:, list(order)] * signs * (0.9, 1.1, 3.3)
        affine[:3, 3] = (-10, 20, 5)
        ours, world = to_ras(array, affine)
        theirs = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
        np.testing.assert_array_equal(ours, theirs.get_fdata())
        np.testing.assert_allclose(world, theirs.affine, atol=1e-12)
        assert ours.flags.c_contiguous
        np.testing.assert_array_equal(from_ras(ours, affine), array)
