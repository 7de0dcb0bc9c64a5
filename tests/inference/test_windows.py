import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from medprism.inference.windows import slide, slide_embed

M, SHAPE, PATCH = 3, (20, 17, 23), (8, 8, 8)


def pointwise(images, present):
    """All M outputs from the sum of the present scans."""
    total = torch.where(present[:, :, None, None, None], images, 0).sum(1, keepdim=True)
    return torch.cat([total * (m + 1) + m for m in range(images.shape[1])], 1)


def blurred(images, present):
    """Depends on the neighbours and the window's border."""
    return torch.nn.functional.avg_pool3d(pointwise(images, present), 3, 1, 1)


@pytest.fixture
def images():
    volume = torch.randn(M, *SHAPE, generator=torch.Generator().manual_seed(0))
    return volume


ALL = torch.ones(M, dtype=torch.bool)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
def test_windows_equal_the_whole_for_a_pointwise_network(images, overlap):
    out = slide(pointwise, images, ALL, PATCH, overlap=overlap)
    torch.testing.assert_close(out, pointwise(images[None], ALL[None])[0], rtol=1e-4, atol=1e-4)


def test_it_is_monais_sliding_window(images):
    theirs = sliding_window_inference(
        images[None], PATCH, 1, lambda x: blurred(x, ALL[None]), overlap=0.5, mode="gaussian"
    )[0]
    torch.testing.assert_close(slide(blurred, images, ALL, PATCH), theirs, rtol=1e-5, atol=1e-5)


def test_batch_equals_loop(images):
    loop = slide(blurred, images, ALL, PATCH, batch=1)
    for batch in (2, 5, 1000):
        torch.testing.assert_close(slide(blurred, images, ALL, PATCH, batch=batch), loop, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 17, 3), (1, 1, 1), (8, 8, 8), (7, 9, 8)])
def test_small_volumes_are_padded_by_the_background_and_cut_back(shape):
    images, background, seen = torch.randn(M, *shape), torch.tensor([-1.0, 0.3, 7.0]), []

    def spy(stack, present):
        seen.append(stack)
        return pointwise(stack, present)

    out = slide(spy, images, ALL, PATCH, background=background)
    torch.testing.assert_close(out, pointwise(images[None], ALL[None])[0], rtol=1e-5, atol=1e-5)
    corner = seen[0][0, :, 0, 0, -1]
    if shape[2] < 7:
        torch.testing.assert_close(corner, background)


def test_absent_scans_are_never_read(images):
    present = torch.tensor([True, False, True])
    clean = slide(blurred, images, present, PATCH)
    dirty = images.clone()
    dirty[1] = torch.nan
    seen = []

    def spy(stack, given):
        seen.append(stack[:, 1])
        return blurred(stack, given)

    assert torch.equal(slide(spy, dirty, present, PATCH, background=torch.tensor([1.0, 2.0, 3.0])), clean)
    assert all((stack == 0).all() for stack in seen)
    torch.testing.assert_close(
        slide(blurred, dirty[:, :3, :3, :3], present, PATCH), slide(blurred, images[:, :3, :3, :3], present, PATCH)
    )


def test_empty_windows_are_skipped_and_nothing_changes_in_the_foreground(images):
    foreground = torch.zeros(SHAPE, dtype=torch.bool)
    foreground[2:7, 3:6, 11:15] = True
    calls = []

    def counted(stack, present):
        calls.append(len(stack))
        return blurred(stack, present)

    air = torch.tensor([-3.0, 0.0, 5.0])
    whole = slide(counted, images, ALL, PATCH, foreground=torch.ones(SHAPE, dtype=torch.bool))
    every, calls = sum(calls), []
    part = slide(counted, images, ALL, PATCH, foreground=foreground, background=air)
    assert 0 < sum(calls) < every / 4
    torch.testing.assert_close(part[:, foreground], whole[:, foreground])
    torch.testing.assert_close(part[:, -1, -1, 0], air)


def test_without_foreground_no_window_runs_and_all_is_background():
    air = torch.tensor([-1.0, 0.0, 2.0])
    empty = air[:, None, None, None].expand(M, *SHAPE)

    def never(stack, present):
        raise AssertionError

    assert torch.equal(slide(never, empty, ALL, PATCH, background=air), empty)


def test_foreground_is_where_a_present_scan_differs_from_its_air():
    air = torch.tensor([-1.0, 0.0, 2.0])
    images = air[:, None, None, None].repeat(1, *SHAPE)
    images[2, 19, 16, 22] = 3
    runs = []
    slide(lambda s, p: runs.append(len(s)) or s, images, ALL, PATCH, background=air)
    assert runs == [1]
    runs.clear()
    slide(lambda s, p: runs.append(len(s)) or s, images, torch.tensor([True, True, False]), PATCH, background=air)
    assert runs == []


def test_half_precision_is_blended_in_single(images):
    out = slide(lambda s, p: pointwise(s, p).bfloat16(), images, ALL, PATCH)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, pointwise(images[None], ALL[None])[0], rtol=1e-2, atol=1e-2)


def test_progress_counts_to_the_end(images):
    steps = []
    slide(pointwise, images, ALL, PATCH, batch=4, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})


def test_any_number_of_outputs_with_their_own_values_outside(images):
    foreground = torch.zeros(SHAPE, dtype=torch.bool)
    foreground[:4, :4, :4] = True

    def two(stack, present):
        return blurred(stack, present)[:, :2] + 1

    out = slide(two, images, ALL, PATCH, foreground=foreground, outside=torch.tensor([7.0, -2.0]))
    assert out.shape == (2, *SHAPE)
    assert out[:, -1, -1, -1].tolist() == [7, -2]
    wanted = slide(blurred, images, ALL, PATCH, foreground=foreground)[:2, :8, :8, :8] + 1
    torch.testing.assert_close(out[:, :8, :8, :8], wanted, rtol=1e-5, atol=1e-5)
    none = slide(two, images, ALL, PATCH, foreground=foreground & False, outside=torch.tensor([7.0, -2.0]))
    assert none.shape == (2, *SHAPE)


def embed(stack, present):
    mean = stack.mean((2, 3, 4))
    return torch.stack([mean, mean + 1], -1)


def test_embedding_weighs_windows_by_foreground():
    images = torch.zeros(M, 16, 8, 8)
    images[:, :8], images[:, 8:] = 1, 4
    foreground = torch.zeros(16, 8, 8, dtype=torch.bool)
    foreground[0, 0, 0] = foreground[8, :3, 0] = True
    present = torch.tensor([True, True, False])
    out = slide_embed(embed, images, present, PATCH, foreground=foreground, batch=2)
    np.testing.assert_allclose(out[:2, 0], (1 * 1 + 3 * 4) / 4)
    np.testing.assert_allclose(out[:2, 1], (1 * 1 + 3 * 4) / 4 + 1)
    assert (out[2] == 0).all()


def test_embedding_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="foreground"):
        slide_embed(embed, torch.zeros(M, *SHAPE), ALL, PATCH)
