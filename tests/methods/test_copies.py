"""Copies are the scan where nothing is hidden, and another scan or the template where something is."""

import math
from dataclasses import replace

import pytest
import torch

from medprism.errors import UserError
from medprism.methods.copies import Copier
from medprism.methods.masking import Masking
from medprism.models.atlas import box_grid
from medprism.models.templates import Templates
from tests.methods.batches import batch

NAMES = ("t1n", "t1c", "t2w")
MIXED = [[True, False, True], [True, True, True], [False, True, False], [True, True, False]]
GRID = box_grid((-4, -4, -4), (20, 20, 20), 2.0)
MASK = Masking("grid", 0.75, 4)


def templates(names=NAMES):
    return Templates(names, GRID, seed=1)


def made(data, mask=MASK, names=NAMES, when=3, **options):
    return Copier(mask, names, 7)(data, data.present, templates(names), when, **options)


def turned(data, order):
    names = ("images", "foreground", "present")
    return replace(data, **{name: getattr(data, name)[:, order] for name in names})


def rows_of(data, rows):
    tensors = ("images", "foreground", "present", "affine", "index")
    names = {"person": [data.person[row] for row in rows], "subject": [data.subject[row] for row in rows]}
    return replace(data, **{name: getattr(data, name)[rows] for name in tensors}, **names)


@pytest.mark.parametrize("mask", [MASK, Masking("cubes", 0.6, 3)], ids=lambda mask: mask.kind)
def test_what_is_hidden_is_behind_another_scan_or_the_template(mask):
    data, volumes = batch(MIXED), templates()
    found = made(data, mask)
    assert [data.present[b, m].item() for b, m in zip(found.owner, found.source, strict=True)] == [True] * 8
    for row, (b, m) in enumerate(zip(found.owner.tolist(), found.source.tolist(), strict=True)):
        f, g, clean, hidden_f, hidden_g = (
            getattr(found, name)[row, 0] for name in ("f", "g", "clean", "hidden_f", "hidden_g")
        )
        template = volumes(data.affine[b : b + 1], (16, 16, 16), torch.tensor([m]))[0, 0]
        assert torch.equal(clean, data.images[b, m])
        assert torch.equal(g, torch.where(hidden_g, template, clean))
        others = [data.images[b, k] for k in range(3) if k != m and data.present[b, k]] or [template]
        assert sum(torch.equal(f, torch.where(hidden_f, other, clean)) for other in others) == 1
        for hidden in (hidden_f, hidden_g):
            assert float(hidden.float().mean()) == pytest.approx(mask.ratio, abs=0.03)
    masks = torch.cat([found.hidden_f, found.hidden_g]).flatten(1)
    assert len(torch.unique(masks, dim=0)) == 16  # each copy of each scan has its own


def test_before_scans_cross_the_template_hides_both_copies():
    data, volumes = batch(MIXED), templates()
    found, crossed = made(data, crossing=False), made(data)
    template = volumes(data.affine[found.owner], (16, 16, 16), found.source)
    assert torch.equal(found.f, torch.where(found.hidden_f, template, found.clean))
    assert torch.equal(found.g, crossed.g)
    alone = found.owner == 2  # the subject with one scan
    assert torch.equal(found.f[alone], crossed.f[alone])
    assert not torch.equal(found.f[~alone], crossed.f[~alone])


def test_absent_content_is_not_read():
    clean, poisoned = made(batch(MIXED)), made(batch(MIXED, absent=math.nan))
    assert torch.equal(clean.f, poisoned.f)
    assert torch.equal(clean.g, poisoned.g)


def test_copies_depend_neither_on_the_batch_nor_on_the_order_of_modalities():
    data, order = batch(MIXED), [2, 0, 1]
    together = made(data)
    for row in range(4):
        alone, own = made(rows_of(data, [row])), together.owner == row
        assert torch.equal(alone.f, together.f[own])
        assert torch.equal(alone.g, together.g[own])
    other = made(turned(data, order), names=tuple(NAMES[m] for m in order))
    place = {pair: row for row, pair in enumerate(zip(together.owner.tolist(), together.source.tolist(), strict=True))}
    rows = [place[b, order[m]] for b, m in zip(other.owner.tolist(), other.source.tolist(), strict=True)]
    assert torch.equal(other.f, together.f[rows])
    assert torch.equal(other.g, together.g[rows])
    assert not torch.equal(made(data, when=4).f, together.f)


def test_one_scan_of_each_is_drawn_evenly():
    data = batch(MIXED)
    copier = Copier(MASK, NAMES, 7)
    drawn = torch.stack([copier.one(data, epoch) for epoch in range(400)])
    assert torch.equal(drawn.sum(dim=2), torch.ones(400, 4, dtype=torch.int64))
    assert not (drawn & ~data.present).any()
    expected = data.present / data.present.sum(dim=1, keepdim=True)
    torch.testing.assert_close(drawn.float().mean(dim=0), expected, rtol=0, atol=0.08)
    order = [2, 0, 1]
    other = Copier(MASK, tuple(NAMES[m] for m in order), 7).one(turned(data, order), 5)
    assert torch.equal(other, drawn[5][:, order])


def test_a_modality_without_template_and_a_crop_beyond_the_grid_are_refused():
    data = batch([[True, True, True]])
    with pytest.raises(UserError, match="a template for each of t1n t1c t2w, got none for t2w"):
        Copier(MASK, NAMES, 7)(data, data.present, templates(("t1n", "t1c")), 0)
    data.affine = data.affine.clone()
    data.affine[0, 0, 3] = 30
    with pytest.raises(UserError, match=r"got one of s0 that reaches 25\.0 mm beyond"):
        made(data)
