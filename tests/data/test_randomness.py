import random

import numpy as np
import torch

from medprism.data.randomness import digest, rng, torch_rng


def test_same_key_same_stream_whatever_was_drawn_before():
    first = rng(3, "crop", 1, 7).random(5)
    rng(3, "crop", 1, 8).random(100)
    np.random.default_rng().random(3)
    assert np.array_equal(rng(3, "crop", 1, 7).random(5), first)
    assert torch.equal(torch.rand(5, generator=torch_rng(3, "x")), torch.rand(5, generator=torch_rng(3, "x")))


def test_the_stream_is_pinned():
    # A change of the stream would silently end the exact resume of runs that were started before it.
    assert digest(0, "crop", 1) % 10**9 == 108012014
    assert rng(0, "crop", 1).integers(0, 1000, 3).tolist() == [859, 884, 802]
    assert torch_rng(0, "crop", 1).initial_seed() == 3663292651519472881


def test_numpy_integers_and_python_integers_are_one_key():
    assert digest(np.int64(4), "a", np.uint8(2)) == digest(4, "a", 2)


def test_every_part_of_the_key_matters():
    keys = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 0), (0, 0, "a"), (0, "0"), (0, 0), (0, "a", "b"), (0, "ab"), (-1,)]
    assert len({digest(*key) for key in keys}) == len(keys)


def test_streams_of_neighbouring_keys_are_independent():
    draws = np.stack([rng(0, "crop", index).standard_normal(2000) for index in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 0.1  # 4.5 standard deviations of a correlation of 2000 pairs


def test_global_generators_are_left_alone():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    rng(1, "a").random(), torch.rand(2, generator=torch_rng(1, "a"))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after
