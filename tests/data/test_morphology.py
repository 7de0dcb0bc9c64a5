"""Each operation is scipy's, on masks of every density and on volumes of a single slice."""

import numpy as np
import pytest
from scipy import ndimage

from medprism.data.morphology import IN_PLANE, dilated, eroded, filled, majority


@pytest.fixture(params=[0.2, 0.5, 0.8], ids=lambda density: f"{density:.0%}")
def masks(request):
    draw = np.random.default_rng(0)
    noise = [draw.random(shape) for shape in ((1, 5, 6), (4, 1, 1), (17, 12, 9), (30, 31, 33))]
    return [m < request.param for each in noise for m in (each, ndimage.uniform_filter(each, 3))]


@pytest.mark.parametrize("times", [0, 1, 3])
def test_layers_are_taken_and_added_as_by_scipy(masks, times):
    for mask in masks:
        if times:
            np.testing.assert_array_equal(
                eroded(mask, times), ndimage.binary_erosion(mask, None, times, border_value=1)
            )
            np.testing.assert_array_equal(dilated(mask, times), ndimage.binary_dilation(mask, None, times))
        else:
            np.testing.assert_array_equal(eroded(mask, 0), mask)


def test_the_majority_is_a_median_filter(masks):
    for mask in masks:
        np.testing.assert_array_equal(majority(mask), ndimage.median_filter(mask, 3, mode="nearest"))


def test_holes_are_filled_as_by_scipy(masks):
    for mask in masks:
        np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))


def test_labels_in_the_plane_are_those_of_each_slice():
    mask = np.random.default_rng(1).random((9, 8, 7)) < 0.5
    _, count = ndimage.label(mask, IN_PLANE)
    assert count == sum(ndimage.label(mask[..., z])[1] for z in range(7))
