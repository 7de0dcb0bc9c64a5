"""Rotations are exact and invertible; corruption destroys the share that it is told to."""

import numpy as np
import pytest
import torch

from medprism.data.randomness import rng
from medprism.methods.views import ABOUT_Z, CUBE, Corruption, boxes


def matrix(rotation) -> np.ndarray:
    """The rotation's matrix, read off from how it moves a coordinate volume."""
    axes = torch.stack(torch.meshgrid(*[torch.tensor([-1.0, 0.0, 1.0])] * 3, indexing="ij"))
    turned = rotation(axes)
    basis = [turned[:, 2, 1, 1], turned[:, 1, 2, 1], turned[:, 1, 1, 2]]
    return torch.stack(basis, dim=1).numpy()


def test_cube_has_the_24_proper_rotations():
    matrices = {tuple(matrix(r).ravel()) for r in CUBE}
    assert len(matrices) == 24
    assert all(round(np.linalg.det(np.array(m).reshape(3, 3))) == 1 for m in matrices)
    x = torch.rand(2, 4, 4, 4)
    assert torch.equal(CUBE[0](x), x)


def test_rotations_about_z_stay_in_the_x_y_plane():
    assert len(ABOUT_Z) == 4
    x = torch.rand(1, 5, 5, 3)
    expected = {torch.rot90(x, k, (1, 2)).numpy().tobytes() for k in range(4)}
    assert {r(x).contiguous().numpy().tobytes() for r in ABOUT_Z} == expected


@pytest.mark.parametrize("rotation", CUBE)
def test_inverse_undoes_the_turn(rotation):
    x = torch.rand(3, 2, 4, 5, 6)
    assert torch.equal(rotation.inverse(rotation(x)), x)


def test_boxes_cover_about_the_share():
    for share in (0.1, 0.3):
        mask = boxes((40, 40, 40), share, rng(0, share * 10 // 1))
        assert 0.5 * share < mask.mean() <= share + 0.25**3
    assert not boxes((40, 40, 40), 0.0, rng(0, 1)).any()


def test_corruption_replaces_by_noise_and_by_the_partner():
    views = torch.stack([torch.full((1, 20, 20, 20), 5.0), torch.full((1, 20, 20, 20), 9.0)])
    partners = torch.tensor([1, 0])
    keys = [("a",), ("b",)]
    out = Corruption(cutout=0.3, swap=0.3)(views, partners, 0, keys)
    assert 0.05 < (out[0] == 9).float().mean() < 0.35
    assert 0.05 < (out[1] == 5).float().mean() < 0.35
    noise = out[0][(out[0] != 5) & (out[0] != 9)]
    assert abs(float(noise.mean())) < 0.2
    assert abs(float(noise.std()) - 1) < 0.2
    assert torch.equal(out, Corruption(0.3, 0.3)(views, partners, 0, keys))
    assert torch.equal(Corruption(0.0, 0.0)(views, partners, 0, keys), views)


def test_a_row_that_is_its_own_partner_keeps_its_content():
    views = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(Corruption(cutout=0.0, swap=0.3)(views, torch.tensor([0]), 0, [("a",)]), views)
