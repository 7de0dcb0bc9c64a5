from itertools import permutations

import numpy as np
import pytest

from medprism.evaluation.representation.retrieval import random_reciprocal_rank, retrieve


def test_ranks_of_points_on_a_line():
    queries, gallery = np.array([[0.0], [10.0]]), np.array([[1.0], [2.0], [9.0]])
    wanted = np.array([[False, True, False], [False, False, True]])
    everybody = np.ones_like(wanted)
    found = retrieve(queries, gallery, wanted, everybody)
    assert found.top1.tolist() == [0, 1]
    assert found.mrr.tolist() == [1 / 2, 1]
    assert found.chance_top1.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert found.chance_mrr.tolist() == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3] * 2)
    closer_is_out = everybody.copy()
    closer_is_out[0, 0] = False
    assert retrieve(queries, gallery, wanted, closer_is_out).mrr.tolist() == [1, 1]


def test_the_nearest_of_several_wanted_counts():
    wanted = np.array([[True, False, True]])
    found = retrieve(np.zeros((1, 1)), np.array([[5.0], [1.0], [3.0]]), wanted, np.ones_like(wanted))
    assert found.mrr.tolist() == [1 / 2]
    assert found.chance_top1.tolist() == [pytest.approx(2 / 3)]


def test_a_collapsed_representation_finds_nobody():
    wanted = np.eye(4, dtype=bool)
    found = retrieve(np.ones((4, 3)), np.ones((4, 3)), wanted, np.ones_like(wanted))
    assert not found.top1.any()
    assert found.mrr.tolist() == [1 / 4] * 4


@pytest.mark.parametrize(("size", "hits"), [(1, 1), (4, 1), (5, 2), (5, 5), (6, 3)])
def test_chance_is_the_mean_over_all_orders(size, hits):
    ranks = [1 + min(order[:hits]) for order in permutations(range(size))]
    assert random_reciprocal_rank(size, hits) == pytest.approx(np.mean(1 / np.array(ranks)))
