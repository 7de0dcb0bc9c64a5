import pytest
import torch

from medprism.inference.uncertainty import spread, views

PRESENT = torch.tensor([True, False, True])


def volume(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def all_from_given(images, present, foreground):
    return images[present].mean(0).expand_as(images) * 2 + 1


def blurred(images, present, foreground):
    return torch.nn.functional.avg_pool3d(all_from_given(images, present, foreground), 3, 1, 1)


def test_no_spread_of_an_equivariant_network_with_one_source():
    one = torch.tensor([False, True, False])
    assert spread(all_from_given, volume(3, 6, 9, 4), one, torch.ones(6, 9, 4)).abs().max() == 0
    assert spread(blurred, volume(3, 6, 9, 4), one, torch.ones(6, 9, 4)).abs().max() < 1e-5


def test_two_sources_that_disagree_spread_by_half_their_difference():
    images = volume(3, 5, 6, 4)
    images[1] = torch.nan
    out = spread(all_from_given, images, PRESENT, torch.ones(5, 6, 4))
    torch.testing.assert_close(out, (images[0] - images[2]).abs().expand_as(out), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quarters", [True, False])
def test_it_is_the_deviation_over_all_views_rotated_back(quarters):
    ramp = torch.arange(5.0)[:, None, None].expand(5, 5, 2)
    images = volume(3, 5, 5, 2)

    def lopsided(images, present, foreground):
        return all_from_given(images, present, foreground) + ramp

    seen = [
        torch.rot90(lopsided(torch.rot90(images, k, (1, 2)), s, None), -k, (1, 2))
        for s, k in views(PRESENT, quarters=quarters)
    ]
    assert len(seen) == (8 if quarters else 4)
    out = spread(lopsided, images, PRESENT, torch.ones(5, 5, 2), quarters=quarters)
    torch.testing.assert_close(out, torch.stack(seen).std(0, correction=0), rtol=1e-4, atol=1e-5)


def test_the_foreground_turns_with_the_images():
    images, shapes = volume(3, 4, 7, 2), []

    def spy(images, present, foreground):
        assert torch.equal(images[0] > 0, foreground)
        shapes.append(tuple(foreground.shape))
        return images

    spread(spy, images, PRESENT, images[0] > 0)
    assert set(shapes) == {(4, 7, 2), (7, 4, 2)}
