"""InfoNCE against its closed form."""

import math

import pytest
import torch

from medprism.methods.contrast import info_nce


def reference(queries, keys, positive, query_sample, key_sample, t):
    """Eq. 2 written out with loops."""
    losses = []
    for i, query in enumerate(queries):
        scores = {}
        for j, key in enumerate(keys):
            if j == positive[i] or query_sample[i] != key_sample[j]:
                scores[j] = math.exp(float(torch.cosine_similarity(query, key, dim=0)) / t)
        losses.append(-math.log(scores[int(positive[i])] / sum(scores.values())))
    return torch.tensor(losses)


def test_against_the_loop():
    torch.manual_seed(0)
    queries, keys = torch.randn(5, 8), torch.randn(7, 8)
    sample = torch.tensor([3, 3, 4, 4, 5])
    key_sample = torch.tensor([9, 9, 3, 3, 4, 4, 5])
    positive = torch.arange(5) + 2
    found = info_nce(queries, keys, positive, sample, key_sample, 0.5)
    torch.testing.assert_close(found, reference(queries, keys, positive, sample, key_sample, 0.5))


def test_indistinguishable_embeddings_give_the_log_of_the_number_of_choices():
    ones = torch.ones(4, 3)
    sample = torch.tensor([0, 0, 1, 2])
    found = info_nce(ones, ones, torch.arange(4), sample, sample, 0.1)
    expected = torch.tensor([math.log(3), math.log(3), math.log(4), math.log(4)])
    torch.testing.assert_close(found, expected)


def test_another_modality_of_the_same_sub_volume_is_neither():
    """However alike it is, the loss does not change."""
    torch.manual_seed(0)
    queries, keys = torch.randn(3, 4), torch.randn(3, 4)
    sample = torch.tensor([0, 0, 1])
    before = info_nce(queries, keys, torch.arange(3), sample, sample, 0.1)[0]
    keys[1] = queries[0]
    torch.testing.assert_close(info_nce(queries, keys, torch.arange(3), sample, sample, 0.1)[0], before)


def test_one_sub_volume_is_refused():
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match="at least two sub-volumes"):
        info_nce(ones, ones, torch.arange(2), torch.zeros(2), torch.zeros(2), 0.1)
