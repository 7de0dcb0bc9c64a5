import numpy as np
import pytest

from medprism.data.labels import numbered, relabel
from medprism.errors import UserError


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_relabel_equals_the_loop(dtype):
    stored = np.random.default_rng(0).choice([0, 1, 2, 4], (5, 6, 7)).astype(dtype)
    mapped = relabel(stored, {"background": 0, "a": 1, "b": 2, "c": 3}, {4: 3}, "x")
    expected = stored.copy()
    expected[stored == 4] = 3
    np.testing.assert_array_equal(mapped, expected)
    assert mapped.dtype == np.uint8


def test_relabel_may_exchange_values():
    mapped = relabel(np.array([1, 2, 0]), {"background": 0, "a": 1, "b": 2}, {1: 2, 2: 1}, "x")
    np.testing.assert_array_equal(mapped, [2, 1, 0])


def test_relabel_says_what_is_outside():
    with pytest.raises(UserError, match=r"sub-1: expected label values \[0, 1, 4\], got also \[2, 9\]; name them"):
        relabel(np.array([0, 1, 2, 4, 9]), {"background": 0, "a": 1}, {4: 1}, "sub-1")


def test_numbered():
    assert numbered({0, 4, 2}) == {"background": 0, "label_2": 2, "label_4": 4}
    assert numbered(set()) == {"background": 0}
