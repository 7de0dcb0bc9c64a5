import torch

from medprism.methods.subsets import all_subsets, drawn_subsets
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")


def test_drawn_subsets_are_within_what_is_present_and_all_occur():
    given = batch([[True, True, True], [False, True, True], [True, False, False]], size=(1, 1, 1))
    drawn = torch.stack([drawn_subsets(given, epoch, NAMES, seed=0) for epoch in range(200)])
    assert not (drawn & ~given.present).any()
    assert drawn.any(-1).all()
    seen = [{tuple(row.tolist()) for row in drawn[:, k]} for k in range(3)]
    assert [len(own) for own in seen] == [7, 3, 1]
    full = drawn[:, 0].all(-1).float().mean()
    assert 0.07 < full < 0.22  # one of seven
    often = torch.stack([drawn_subsets(given, epoch, NAMES, seed=0, full=0.5) for epoch in range(200)])
    assert 0.45 < often[:, 0].all(-1).float().mean() < 0.7


def test_draws_depend_on_seed_epoch_and_index_alone():
    given = batch([[True, True, True], [True, False, True]], size=(1, 1, 1))
    turned = batch([[True, True, True], [True, True, False]], size=(1, 1, 1))
    for epoch in range(10):
        drawn = drawn_subsets(given, epoch, NAMES, 3)
        again = drawn_subsets(turned, epoch, ("t1n", "t2f", "t2w"), 3)  # the same scans in another order
        assert torch.equal(drawn, again[:, [0, 2, 1]])


def test_all_subsets():
    found = all_subsets(torch.tensor([True, False, True, True]))
    assert len(found) == 7
    assert len({tuple(one.tolist()) for one in found}) == 7
    assert all(one.any() and not one[1] for one in found)
    assert [int(one.sum()) for one in found] == [1, 1, 1, 2, 2, 2, 3]
