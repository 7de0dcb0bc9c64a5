import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, compute_hausdorff_distance
from scipy.spatial.distance import cdist

from medprism.evaluation.overlap import bounds, diagonal, dice, hd95, surface

SPACING = (1.0, 1.5, 3.0)


def blobs(seed, shape=(20, 18, 14), part=0.02):
    """A ragged mask of several components, some of them at the border."""
    rng = np.random.default_rng(seed)
    seeds = rng.random(shape) < part
    return np.any([np.roll(seeds, shift, axis) for axis in range(3) for shift in (0, 1)], axis=0)


def ball(shape, centre, radius):
    grid = np.indices(shape)
    return sum((grid[k] - centre[k]) ** 2 for k in range(3)) <= radius**2


def neighbours_surface(mask):
    """By looking at each voxel's six neighbours."""
    edge = np.zeros_like(mask)
    for x, y, z in np.argwhere(mask):
        for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
            place = tuple(np.array([x, y, z]) + step)
            outside = any(not 0 <= p < n for p, n in zip(place, mask.shape, strict=True))
            edge[x, y, z] |= outside or not mask[place]
    return edge


@pytest.mark.parametrize("seed", range(4))
def test_hd95_is_that_of_all_pairs_of_surface_voxels(seed):
    a, b = blobs(seed), blobs(seed + 100, part=0.005)
    places = [np.argwhere(neighbours_surface(mask)) * SPACING for mask in (a, b)]
    distances = cdist(*places)
    expected = max(np.percentile(distances.min(axis=k), 95) for k in (0, 1))
    assert hd95(a, b, SPACING) == pytest.approx(expected)
    assert hd95(b, a, SPACING) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_dice_and_hd95_are_monais(seed):
    a, b = ball((20, 18, 14), (8, 8, 6), 5), ball((20, 18, 14), (10, 9, 7), 4) | blobs(seed, part=0.003)
    one, two = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
    assert dice(a, b) == pytest.approx(float(DiceMetric()(two, one)[0, 0]))
    theirs = compute_hausdorff_distance(two, one, include_background=True, percentile=95, spacing=SPACING)
    assert hd95(a, b, SPACING) == pytest.approx(float(theirs[0, 0]), rel=1e-5)


def test_shifted_box_has_a_closed_form():
    a = np.zeros((16, 16, 16), bool)
    a[2:8, 2:8, 2:8] = True
    b = np.roll(a, 3, axis=2)
    assert dice(a, b) == 0.5
    assert hd95(a, b, (1, 1, 2.0)) == 6.0
    assert (dice(a, a), hd95(a, a, SPACING)) == (1.0, 0.0)


def test_rules_for_empty_regions():
    nothing, something = np.zeros((240, 240, 155), bool), np.zeros((240, 240, 155), bool)
    something[5, 5, 5] = True
    assert (dice(nothing, nothing), hd95(nothing, nothing, (1, 1, 1))) == (1.0, 0.0)
    for a, b in ((nothing, something), (something, nothing)):
        assert dice(a, b) == 0.0
        assert hd95(a, b, (1, 1, 1)) == pytest.approx(373.13, abs=0.01)


def test_no_distance_is_beyond_the_penalty():
    a, b = np.zeros((2, 9, 11, 7), bool)
    a[0, 0, 0] = b[-1, -1, -1] = True
    assert hd95(a, b, SPACING) < diagonal(a.shape, SPACING)


def test_surface_and_bounds():
    mask = blobs(1)
    np.testing.assert_array_equal(surface(mask), neighbours_surface(mask))
    assert surface(np.ones((3, 3, 3), bool)).sum() == 26
    box = bounds(np.pad(np.ones((2, 3, 4), bool), ((1, 2), (3, 0), (0, 5))))
    assert box == (slice(1, 3), slice(3, 6), slice(0, 4))
    assert bounds(np.zeros((3, 3, 3), bool)) is None
