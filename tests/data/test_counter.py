"""Counter-based draws: SplitMix64 itself, independent of the batch, normal where they should be."""

import pytest
import torch

from medprism.data.counter import random_bits, random_normal, sample_keys


def splitmix64(state, count):
    """The algorithm with Python's integers."""
    wrap, found = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & wrap
        x = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & wrap
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & wrap
        found.append(x ^ (x >> 31))
    return found


@pytest.mark.parametrize("key", [0, 1234567, -1, -(1 << 63), 0x7EDCBA9876543210])
def test_draws_are_those_of_splitmix64(key):
    bits = random_bits(torch.tensor([key]), 50)[0].tolist()
    assert [value & ((1 << 64) - 1) for value in bits] == splitmix64(key & ((1 << 64) - 1), 50)


def test_published_numbers():
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_draw_depends_on_its_key_and_number_only():
    keys = sample_keys(3, [("mask", epoch, index) for epoch in range(3) for index in range(4)])
    assert len(set(keys.tolist())) == 12
    together = random_bits(keys, 9)
    for row, key in enumerate(keys):
        assert torch.equal(random_bits(key[None], 4)[0], together[row, :4])
    assert not set(keys.tolist()) & set(sample_keys(4, [("mask", 0, index) for index in range(4)]).tolist())


def test_normal_draws_have_the_moments_of_a_normal_distribution():
    keys = sample_keys(0, [(n,) for n in range(20)])
    x = random_normal(keys, 10001)
    assert x.shape == (20, 10001)
    assert x.dtype == torch.float32
    x = x.double()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((x**power).mean()) - moment) < 5 * (spread / x.numel()) ** 0.5
    assert abs(float((x[:, :5000] * x[:, 5001:10001]).mean())) < 5 / 100000**0.5  # cosines and sines of one radius
    assert float(torch.corrcoef(x).fill_diagonal_(0).abs().max()) < 0.05
    assert torch.equal(random_normal(keys[7:8], 10001)[0], x[7].float())
