"""Sampling in world space against SciPy and against slicing; gradients where the crops are and nowhere else."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medprism.data.turns import Turn
from medprism.errors import UserError
from medprism.io.grid import Grid
from medprism.models.atlas import HEAD, _Boxes, box_grid, covering_grid, head_grid, overhang, sample

SHAPE = (14, 17, 12)


def oblique(spacing, angle=0.3, origin=(1.5, -2.0, 3.25)):
    """A rotation about z, then about x, with other spacings along the axes."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * np.array(spacing), origin
    return affine


def volumes(count=2, grad=False):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64).requires_grad_(grad)


def crop(grid, start):
    """The affine of the crop at a voxel."""
    return torch.from_numpy(np.array(grid.crop(start, (2, 2, 2)).affine))[None]


def test_on_its_own_lattice_it_is_the_identity():
    grid = Grid(SHAPE, oblique((2.0, 1.0, 1.5)))
    found = sample(volumes(), grid, torch.from_numpy(np.array(grid.affine))[None], SHAPE, torch.tensor([1]))
    torch.testing.assert_close(found[0, 0], volumes()[1])
    single = sample(volumes().float(), grid, torch.from_numpy(np.array(grid.affine))[None], SHAPE, torch.tensor([1]))
    torch.testing.assert_close(single[0, 0], volumes()[1].float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("turn", [Turn(), Turn((True, False, True)), Turn((False, True, False), 3)])
def test_a_turned_crop_is_the_turned_slice(turn):
    grid, start, size = Grid(SHAPE, oblique((2.0, 1.0, 1.5))), (3, 4, 5), (6, 6, 4)
    affine = turn.affine(np.array(grid.crop(start, size).affine), size)
    found = sample(volumes(), grid, torch.from_numpy(affine)[None], size, torch.tensor([0]))
    expected = turn(volumes()[0].numpy()[3:9, 4:10, 5:9])
    torch.testing.assert_close(found[0, 0], torch.from_numpy(expected))


def test_other_spacings_and_directions_against_scipy():
    """Two crops of other volumes at once, one of which reaches outside, where the nearest edge counts."""
    grid, size = Grid(SHAPE, oblique((2.0, 1.0, 1.5))), (7, 5, 6)
    affines = np.stack(
        [oblique((1.1, 0.9, 2.0), -0.2, (4.0, 3.0, 6.0)), oblique((3.0, 2.0, 2.0), 1.1, (-3.0, 2.0, 1.0))]
    )
    found = sample(volumes(), grid, torch.from_numpy(affines), size, torch.tensor([1, 0]))
    for row, channel in enumerate((1, 0)):
        world = Grid(size, affines[row]).world(np.moveaxis(np.indices(size), 0, -1))
        places = np.moveaxis(grid.voxel(world), -1, 0)
        expected = map_coordinates(volumes()[channel].numpy(), places, order=1, mode="nearest")
        torch.testing.assert_close(found[row, 0], torch.from_numpy(expected))
    assert overhang(grid, affines[1], size) > 1


def test_gradients_are_those_of_slices_and_zero_elsewhere():
    grid, weights = Grid(SHAPE, np.eye(4)), torch.randn(2, 1, 4, 5, 3, dtype=torch.float64)
    template = volumes(3, grad=True)
    affine = torch.cat([crop(grid, (2, 3, 4)), crop(grid, (4, 5, 6))])
    (sample(template, grid, affine, (4, 5, 3), torch.tensor([2, 2])) * weights).sum().backward()
    expected = torch.zeros(3, *SHAPE, dtype=torch.float64)
    expected[2, 2:6, 3:8, 4:7] += weights[0, 0]
    expected[2, 4:8, 5:10, 6:9] += weights[1, 0]  # they overlap
    torch.testing.assert_close(template.grad, expected)


def test_gradients_of_a_crop_between_voxels_stay_within_a_voxel_of_it():
    grid, template = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])), volumes(grad=True)
    affine = torch.eye(4, dtype=torch.float64)[None]
    affine[0, :3, 3] = torch.tensor([5.0, 7.0, 3.0])  # voxels 2.5 … 4, 3.5 … 5, 1.5 … 3
    sample(template, grid, affine, (4, 4, 4), torch.tensor([0])).sum().backward()
    touched = template.grad.nonzero()
    assert touched.min(dim=0).values.tolist() == [0, 2, 3, 1]
    assert touched.max(dim=0).values.tolist() == [0, 4, 5, 3]
    assert float(template.grad.sum()) == pytest.approx(64)  # each voxel's weights add up to 1


def test_boxes_against_slicing():
    template = volumes(grad=True)
    boxes = _Boxes.apply(template, [1, 0, 1], [[0, 1, 2], [3, 3, 3], [1, 1, 1]], (2, 3, 4))
    assert torch.equal(boxes[1, 0], template[0, 3:5, 3:6, 3:7])
    small = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: _Boxes.apply(x, [1, 0, 1, 1], [[0, 0, 2], [1, 0, 1]] * 2, (2, 2, 2)), (small,)
    )


def test_one_voxel_thick_volumes_and_crops():
    grid = Grid((1, 17, 12), np.eye(4))
    found = sample(volumes()[:, :1], grid, crop(grid, (0, 2, 3)), (1, 1, 4), torch.tensor([1]))
    torch.testing.assert_close(found[0, 0], volumes()[1, :1, 2:3, 3:7])


def test_overhang_in_mm():
    grid = Grid((10, 10, 10), np.diag([2.0, 3.0, 4.0, 1.0]))
    for start, expected in (((0, 0, 0), 0), ((5, 5, 5), 0), ((6, 5, 5), 2), ((5, -2, 5), 6), ((6, 6, 6), 4)):
        assert overhang(grid, np.array(grid.crop(start, (5, 5, 5)).affine), (5, 5, 5)) == pytest.approx(expected)


def test_a_head_in_mni_space_is_within():
    for spacing in (1.0, 1.5, 2.0, 5.0):
        grid = head_grid(spacing)
        assert grid.spacing == (spacing,) * 3
        np.testing.assert_allclose(grid.affine[:3, 3], HEAD[0])
        last = grid.world(np.array(grid.shape) - 1)
        assert ((last >= np.array(HEAD[1]) - 1e-6) & (last < np.array(HEAD[1]) + spacing)).all()
    assert head_grid(1.0).shape == (193, 229, 193)


def test_a_covering_grid_holds_all_scans_and_little_more():
    scans = [Grid((20, 30, 10), oblique((1.0, 1.2, 3.0))), Grid((9, 9, 9), np.diag([-2.0, -2.0, 2.0, 1.0]))]
    grid = covering_grid(scans, 1.5)
    assert grid.spacing == (1.5,) * 3
    assert all(overhang(grid, np.array(scan.affine), scan.shape) == 0 for scan in scans)
    smaller = Grid(tuple(n - 4 for n in grid.shape), grid.crop((2, 2, 2), grid.shape).affine)
    assert max(overhang(smaller, np.array(scan.affine), scan.shape) for scan in scans) > 1
    same = Grid((5, 6, 7), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert covering_grid([same], 2.0).shape == same.shape


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(UserError, match="positive length"):
        box_grid((0, 0, 0), (1, 1, 1), spacing)
    with pytest.raises(UserError, match="positive length"):
        covering_grid([Grid((5, 6, 7), np.eye(4))], spacing)


def test_no_scan_to_cover_is_refused():
    with pytest.raises(UserError, match="at least one scan"):
        covering_grid([], 1.0)
