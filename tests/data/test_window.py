import numpy as np
import pytest

from medprism.data.window import Window


def test_a_window_and_its_padding_give_the_box_of_the_padded_volume():
    draw = np.random.default_rng(0)
    for _ in range(200):
        shape = draw.integers(2, 9, 3)
        size = draw.integers(1, 12, 3)
        start = np.array([draw.integers(1 - n, s) for n, s in zip(size, shape, strict=True)])
        volume = draw.random((2, *shape))
        wide = np.empty((2, *(shape + 24)))
        wide[0], wide[1] = -1, -2
        wide[(..., *(slice(12, 12 + n) for n in shape))] = volume
        expected = wide[(..., *(slice(12 + s, 12 + s + n) for s, n in zip(start, size, strict=True)))]
        window = Window.of(shape.tolist(), start.tolist(), size.tolist())
        part = volume[(..., *(slice(s, s + n) for s, n in zip(window.start, window.size, strict=True)))]
        assert np.array_equal(window.pad(part, [-1, -2]), expected)


def test_a_box_within_the_volume_is_not_copied():
    part = np.zeros((3, 3, 3), bool)
    assert Window.of((5, 5, 5), (1, 1, 1), (3, 3, 3)).pad(part) is part


def test_padding_keeps_the_type():
    padded = Window.of((2, 2, 2), (-1, 0, 0), (4, 2, 2)).pad(np.ones((2, 2, 2), bool))
    assert padded.dtype == bool
    assert padded.sum() == 8


def test_a_box_beside_the_volume_is_refused():
    with pytest.raises(ValueError, match="meets the volume"):
        Window.of((5, 5, 5), (5, 0, 0), (3, 3, 3))
