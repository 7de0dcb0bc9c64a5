"""Templates stand where scans are not kept, at the scans' places, by the names of the modalities."""

import numpy as np
import pytest
import torch

from medprism.errors import UserError
from medprism.io.grid import Grid
from medprism.models.filling import Filling, filling_of
from medprism.models.templates import Templates

GRID = Grid((12, 14, 10), np.array([[2, 0, 0, -10], [0, 2, 0, -20.5], [0, 0, 2, 30], [0, 0, 0, 1.0]]))
NAMES = ("t1n", "t2w", "t2f")


def at(*starts):
    return torch.stack([torch.from_numpy(np.array(GRID.crop(start, (1, 1, 1)).affine)) for start in starts])


def test_absent_channels_get_the_template_of_their_name_at_their_place():
    templates = Templates(("t2f", "mra", "t1n", "t2w"), GRID)
    images, kept = torch.full((2, 3, 6, 6, 6), 7.0), torch.tensor([[True, False, False], [False, True, True]])
    images[~kept] = float("nan")
    before = images.clone()
    made = Filling(templates, NAMES).filled(images, kept, at((1, 2, 3), (4, 5, 0)))
    boxes = (templates.volumes.detach()[:, 1:7, 2:8, 3:9], templates.volumes.detach()[:, 4:10, 5:11, :6])
    expected = {(0, 1): boxes[0][3], (0, 2): boxes[0][0], (1, 0): boxes[1][2]}
    for row in range(2):
        for channel in range(3):
            wanted = expected.get((row, channel), torch.full((6, 6, 6), 7.0))
            torch.testing.assert_close(made[row, channel], wanted, rtol=0, atol=1e-6)
    assert torch.equal(images.nan_to_num(-1), before.nan_to_num(-1))  # a new tensor


def test_nothing_to_fill_changes_nothing():
    images = torch.randn(1, 3, 6, 6, 6)
    made = Filling(Templates(NAMES, GRID), NAMES).filled(images, torch.ones(1, 3, dtype=torch.bool), at((0, 0, 0)))
    assert torch.equal(made, images)


def test_they_are_frozen_and_their_own():
    templates = Templates(NAMES, GRID)
    filling = Filling(templates, NAMES)
    images = torch.randn(1, 3, 6, 6, 6, requires_grad=True)
    made = filling.filled(images, torch.tensor([[True, False, True]]), at((0, 0, 0)))
    made.sum().backward()
    assert templates.volumes.grad is None
    assert not filling.volumes.requires_grad
    torch.testing.assert_close(images.grad[0].sum((1, 2, 3)), torch.tensor([216.0, 0, 216]))
    templates.volumes.data += 1
    assert float((filling.volumes - templates.volumes.detach()).abs().min()) > 0.9


def test_what_reaches_beyond_is_told_in_mm():
    filling = Filling(Templates(NAMES, GRID, tolerance=3.0), NAMES)
    filling.require_cover(at((0, 0, 0))[0], GRID.shape, "scans")
    with pytest.raises(UserError, match=r"the scans of s7 within 3 mm of the templates' grid, got some .* 8\.0 mm"):
        filling.require_cover(at((4, 0, 0))[0], GRID.shape, "the scans of s7")


def test_a_modality_without_template_is_named():
    with pytest.raises(UserError, match="got none for adc, but those of t1n t2w t2f"):
        Filling(Templates(NAMES, GRID), ("t1n", "adc"))


def test_models_say_how_they_fill(tmp_path):
    assert filling_of({"modalities": NAMES}, None) is None
    with pytest.raises(UserError, match="filled by templates, got a model with atlas; update"):
        filling_of({"fill": "atlas"}, tmp_path)
    with pytest.raises(UserError, match="templates beside it, got one in memory"):
        filling_of({"fill": "templates"}, None)
