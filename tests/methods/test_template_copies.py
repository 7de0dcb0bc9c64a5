"""The two copies: tiled, each with its own draws, which depend on nothing but seed, epoch, index and names."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from medprism.data.batch import Batch
from medprism.errors import UserError
from medprism.io.grid import Grid
from medprism.methods.masking import Masking
from medprism.methods.template_copies import CopiesConfig, TemplateCopies
from medprism.models.filling import Filling
from medprism.models.templates import Templates
from tests.methods.batches import batch

NAMES = ("t1n", "t1c", "t2w", "t2f")
SIZE = (8, 8, 8)
GRID = Grid(SIZE, np.eye(4))
ALL = [[True] * 4]


def templates(names=NAMES):
    made = Templates(names, GRID, tolerance=0)
    made.volumes.data *= 100
    return made


def copies(names=NAMES, seed=0, mask=Masking(ratio=0.5, block=2)):  # noqa: B008 - frozen
    return TemplateCopies(Filling(templates(), names), mask, names, seed)


def seen(given, made):
    """Which channels hold the scan, which the template: 1, 0; anything else fails."""
    volumes = templates().volumes.detach()
    own = (made == given.images).flatten(2).all(dim=2)
    other = ((made - volumes).abs() < 1e-5).flatten(2).all(dim=2)
    assert torch.equal(own, ~other)
    return own


def test_copies_are_tiled_and_hold_scans_and_templates():
    given = batch([[True] * 4, [False, True, True, False], [True, True, True, False]], size=SIZE)
    maker = copies()
    made = maker(given, 3)
    assert made.shape == (6, 4, *SIZE)
    for number, copy in enumerate(made.chunk(2)):
        assert torch.equal(seen(given, copy), maker.kept(given, 3, number))


def test_numbers_of_replaced_scans_are_uniform_and_independent_in_both_copies():
    given = batch([[True, True, True, False]] * 600, size=(1, 1, 1))
    kept = [copies().kept(given, 0, number) for number in range(2)]
    for one in kept:
        assert not one[:, 3].any()
        replaced = Counter((3 - one.sum(dim=1)).tolist())
        assert set(replaced) == {0, 1, 2}
        assert all(150 < count < 250 for count in replaced.values())  # 200 ± 4.3 deviations
        assert all(340 < count < 460 for count in one[:, :3].sum(dim=0).tolist())  # (3 + 2 + 1) / 9 of 600
    both = Counter(zip(*((3 - one.sum(dim=1)).tolist() for one in kept), strict=True))
    assert len(both) == 9
    assert all(35 < count < 100 for count in both.values())


def test_draws_change_with_seed_epoch_and_index():
    given = batch(ALL * 20, size=(1, 1, 1))
    first = copies().kept(given, 0, 0)
    assert torch.equal(first, copies().kept(given, 0, 0))
    others = [copies(seed=1).kept(given, 0, 0), copies().kept(given, 1, 0), copies().kept(given, 0, 1)]
    others.append(copies().kept(replace(given, index=given.index + 100), 0, 0))
    assert not any(torch.equal(first, other) for other in others)


def rows(given: Batch, numbers: list[int]) -> Batch:
    values = {name: value[numbers] for name, value in vars(given).items() if isinstance(value, torch.Tensor)}
    return replace(given, **values, subject=[given.subject[k] for k in numbers], person=[])


PRESENT = [[True, True, False, True], [True, True, True, True], [False, False, True, False], [True, False, True, False]]


def test_copies_do_not_depend_on_what_else_is_in_the_batch():
    given = batch(PRESENT, size=SIZE)
    together = copies()(given, 5)
    for numbers in ([2], [3, 1], [0, 2, 3]):
        apart = copies()(rows(given, numbers), 5)
        assert torch.equal(apart, together[[*numbers, *(4 + k for k in numbers)]])


def test_copies_do_not_depend_on_the_order_of_the_modalities():
    given, order = batch(PRESENT, size=SIZE), [2, 0, 3, 1]
    moved = replace(given, images=given.images[:, order], present=given.present[:, order])
    names = tuple(NAMES[k] for k in order)
    assert torch.equal(copies(names)(moved, 5), copies()(given, 5)[:, order])


@pytest.mark.parametrize("kind", ["grid", "cubes"])
def test_a_single_scan_is_hidden_in_parts_by_its_template(kind):
    given = batch([[False, False, True, False], [True, True, True, True]], size=SIZE)
    first, second = copies(mask=Masking(kind, 0.5, 2))(given, 2).chunk(2)
    volumes = templates().volumes.detach()
    hidden = []
    for copy in (first, second):
        torch.testing.assert_close(copy[0, [0, 1, 3]], volumes[[0, 1, 3]], rtol=0, atol=1e-5)
        own = copy[0, 2] == given.images[0, 2]
        assert float((copy[0, 2] - volumes[2]).abs()[~own].max()) < 1e-5
        hidden.append(~own)
        assert float(hidden[-1].float().mean()) == pytest.approx(0.5, abs=1e-9 if kind == "grid" else 0.03)
    assert not torch.equal(*hidden)


def test_content_of_absent_scans_is_never_read():
    given, poisoned = batch(PRESENT, size=SIZE), batch(PRESENT, size=SIZE, absent=float("nan"))
    made = copies()(poisoned, 1)
    assert made.isfinite().all()
    assert torch.equal(made, copies()(given, 1))
    assert torch.equal(copies().templates(poisoned), copies().templates(given))


def test_templates_alone():
    given = batch(PRESENT, size=SIZE)
    expected = templates().volumes.detach().expand(4, 4, *SIZE)
    torch.testing.assert_close(copies().templates(given), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_weights_that_cannot_be(weight):
    with pytest.raises(UserError, match=r"0 or more for copies\.consistency"):
        CopiesConfig(consistency=weight)
