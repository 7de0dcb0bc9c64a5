from collections import Counter

import pytest

from medprism.data.sampler import EpochSampler
from medprism.errors import UserError


def indices(length, batch_size, *, epoch=0, **options):
    sampler = EpochSampler(length, batch_size, seed=options.pop("seed", 0), **options)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    assert {e for e, _ in drawn} == {epoch}
    return [index for _, index in drawn]


@pytest.mark.parametrize("length", [8, 16, 19, 23, 24])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_processes_sees_the_same_global_batches(length, world):
    alone = indices(length, 8)
    ranks = [indices(length, 8 // world, rank=rank, world=world) for rank in range(world)]
    size = 8 // world
    for step in range(len(alone) // 8):
        together = [index for rank in ranks for index in rank[step * size : (step + 1) * size]]
        assert together == alone[step * 8 : (step + 1) * 8]
    assert len({len(rank) for rank in ranks}) == 1


def test_every_sample_is_seen_and_none_twice_in_a_batch():
    drawn = indices(19, 8)
    assert len(drawn) == 24
    counts = Counter(drawn)
    assert set(counts) == set(range(19))
    assert sum(counts.values()) - len(counts) == 5  # the last batch is filled up, not dropped
    assert all(len(set(drawn[i : i + 8])) == 8 for i in range(0, 24, 8))


def test_order_is_a_function_of_seed_and_epoch():
    assert indices(50, 5, epoch=3) == indices(50, 5, epoch=3)
    orders = {tuple(indices(50, 5, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_fewer_samples_than_a_global_batch_are_refused():
    with pytest.raises(UserError, match=r"at least 8 samples for 2 process.*got 7"):
        EpochSampler(7, 4, seed=0, world=2)
