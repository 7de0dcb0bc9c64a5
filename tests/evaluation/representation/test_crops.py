import numpy as np

from medprism.evaluation.representation.crops import PLACES, crops


def numbered(shape, modalities=2):
    """Every voxel holds its own place."""
    where = np.ravel_multi_index(np.indices(shape), shape).astype(np.float32)
    return np.stack([where + 1e6 * m for m in range(modalities)])


def found(shape, patch, foreground=None):
    images = numbered(shape)
    mask = np.ones(images.shape, bool) if foreground is None else foreground
    return dict(crops(images, mask, patch))


def test_four_places_the_same_in_all_modalities():
    made = found((20, 24, 16), (8, 8, 8))
    assert list(made) == [0, 1, 2, 3]
    starts = {tuple(np.argwhere(numbered((20, 24, 16))[0] == crop[0, 0, 0, 0])[0].tolist()) for crop in made.values()}
    assert starts == {(3, 4, 2), (9, 12, 2), (9, 4, 6), (3, 12, 6)}
    for crop in made.values():
        assert crop.shape == (2, 8, 8, 8)
        np.testing.assert_array_equal(crop[1], crop[0] + 1e6)


def test_places_differ_in_two_axes_each():
    for one in PLACES:
        for other in PLACES:
            assert one == other or sum(a != b for a, b in zip(one, other, strict=True)) == 2


def test_a_small_volume_is_continued_and_has_fewer_places():
    assert list(found((8, 8, 8), (8, 8, 8))) == [0]
    made = found((6, 8, 20), (8, 8, 8))
    assert list(made) == [0, 2]
    np.testing.assert_array_equal(made[0][:, 0], made[0][:, 1])
    np.testing.assert_array_equal(made[0][:, -1], made[0][:, -2])


def test_air_is_left_out():
    foreground = np.zeros((2, 20, 20, 20), bool)
    foreground[1, :8, :8, :8] = True
    assert list(found((20, 20, 20), (8, 8, 8), foreground)) == [0]
    assert not found((20, 20, 20), (8, 8, 8), np.zeros_like(foreground))
