"""Masks have their exact share whatever batch they come in; cubes are those of the loop that the paper writes down."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from medprism.data.counter import random_bits, sample_keys
from medprism.errors import UserError
from medprism.methods.masking import Masking, another_modality, noise

KINDS = ("grid", "cubes")


def keys(count, start=0):
    return [("mask", 1, index) for index in range(start, start + count)]


@pytest.mark.parametrize(
    ("size", "block", "ratio", "kept"),
    [
        ((96, 96, 96), 8, 0.875, 216),
        ((96, 96, 96), 8, 0.8, 345),  # the whole part of 345.6
        ((40, 20, 10), 2, 0.9, 100),  # 1 − 0.9 is a little less than 0.1
        ((48, 32, 16), 16, 0.5, 3),
        ((10, 10, 10), 5, 0.1, 7),
        ((6, 9, 12), 3, 0.99, 0),
        ((5, 7, 3), 1, 0.75, 26),
    ],
)
def test_a_grid_keeps_an_exact_number_of_whole_blocks(size, block, ratio, kept):
    masks = Masking("grid", ratio, block)(size, 0, keys(4))
    assert masks.shape == (4, 1, *size)
    assert masks.dtype == torch.bool
    blocks = F.avg_pool3d(masks.float(), block)
    assert set(blocks.unique().tolist()) <= {0.0, 1.0}
    assert (blocks == 0).sum(dim=(1, 2, 3, 4)).tolist() == [kept] * 4


def test_each_block_is_hidden_equally_often_and_independently():
    masks = Masking("grid", 0.75, 2)((4, 4, 4), 0, keys(4000))[:, 0, ::2, ::2, ::2].reshape(4000, 8).double()
    often = masks.mean(dim=0)
    assert float((often - 0.75).abs().max()) < 5 * (0.75 * 0.25 / 4000) ** 0.5
    # Of 8 blocks 2 are kept: all 28 pairs are as probable.
    pairs = torch.tensor([float((1 - masks[:, a]) @ (1 - masks[:, b])) for a, b in itertools.combinations(range(8), 2)])
    assert float(((pairs - 4000 / 28) ** 2 / (4000 / 28)).sum()) < 60  # χ² of 27 degrees of freedom


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_a_function_of_seed_and_key_alone(kind):
    masking, size = Masking(kind, 0.7, 4), (16, 12, 20)
    together = masking(size, 5, keys(6))
    for row, key in enumerate(keys(6)):
        assert torch.equal(masking(size, 5, [key])[0], together[row])
    assert torch.equal(masking(size, 5, keys(6)[::-1]), together.flip(0))
    assert len({mask.numpy().tobytes() for mask in together}) == 6
    assert not torch.equal(masking(size, 6, keys(6)), together)


def cubes_one_by_one(key, size, ratio, block):
    """Algorithm 1: random voxels, a cube around each, until the share is reached."""
    mask = torch.zeros(size, dtype=torch.bool)
    for draw in random_bits(key[None], 5000)[0].tolist():
        if int(mask.sum()) >= ratio * mask.numel():
            return mask
        voxel = (draw & ((1 << 62) - 1)) % mask.numel()
        centre = (voxel // (size[1] * size[2]), voxel // size[2] % size[1], voxel % size[2])
        starts = [place - block // 2 for place in centre]
        mask[tuple(slice(max(0, start), start + block) for start in starts)] = True
    raise AssertionError


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("ratio", [0.3, 0.875])
def test_cubes_are_those_of_the_loop(block, ratio):
    size = (12, 9, 14)
    masks = Masking("cubes", ratio, block)(size, 2, keys(3))
    for mask, key in zip(masks, sample_keys(2, keys(3)), strict=True):
        assert torch.equal(mask[0], cubes_one_by_one(key, size, ratio, block))
        assert ratio <= float(mask.float().mean()) < ratio + block**3 / math.prod(size)


def test_cubes_that_need_many_more_draws_than_most():
    """All but the last voxels, in corners that are seldom reached."""
    size = (9, 9, 9)
    masks = Masking("cubes", 0.999, 8)(size, 0, keys(20))
    assert (masks.sum(dim=(1, 2, 3, 4)) >= 729 * 0.999).all()


def test_blocks_that_do_not_divide_the_crop_are_refused():
    with pytest.raises(UserError, match=r"of 7 voxels divide, got 32×48×16; set mask\.block to one of 1, 2, 4, 8, 16,"):
        Masking("grid", 0.5, 7)((32, 48, 16), 0, keys(1))
    Masking("cubes", 0.5, 7)((32, 48, 16), 0, keys(1))
    for kind in KINDS:
        with pytest.raises(UserError, match="32"):
            Masking(kind, 0.5, 32)((16, 32, 32), 0, keys(1))


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"ratio": 1.0}, {"ratio": math.nan}, {"block": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=f"mask.{next(iter(options))}, got"):
        Masking(**options)


def test_another_modality_is_present_and_not_the_own():
    present = torch.tensor([[True, True, True, True], [True, False, True, False], [False, False, True, False]])
    present, own = present.repeat(1000, 1), torch.tensor([0, 2, 2]).repeat(1000)
    chosen, some = another_modality(present, own, ("t1n", "t1c", "t2w", "t2f"), 0, keys(3000))
    assert some.tolist() == [True, True, False] * 1000
    often = torch.bincount(chosen[::3], minlength=4)
    assert int(often[0]) == 0
    assert float((often[1:] / 1000 - 1 / 3).abs().max()) < 0.07
    assert (chosen[1::3] == 0).all()
    assert (chosen[2::3] == 2).all()  # its own, for want of another


def test_the_choice_does_not_depend_on_the_order_of_the_modalities():
    names, order = ("t1n", "t1c", "t2w"), torch.tensor([2, 0, 1])
    present, own = torch.ones(50, 3, dtype=torch.bool), torch.zeros(50, dtype=torch.int64)
    chosen, _ = another_modality(present, own, names, 0, keys(50))
    other = [names[place] for place in order]
    again, _ = another_modality(present, own + 1, other, 0, keys(50))
    assert [names[place] for place in chosen] == [other[place] for place in again]


def test_noise_is_a_function_of_its_key():
    values = noise((8, 4, 6), 0, keys(3))
    assert values.shape == (3, 1, 8, 4, 6)
    assert torch.equal(noise((8, 4, 6), 0, keys(1, 2)), values[2:])
    assert len(values.unique()) == values.numel()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_mask_on_every_device(kind):
    masking = Masking(kind)
    found = masking((32, 32, 32), 0, keys(3), "cuda")
    assert found.is_cuda
    assert torch.equal(found.cpu(), masking((32, 32, 32), 0, keys(3)))
