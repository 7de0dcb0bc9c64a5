import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.evaluation.representation.features import Bottleneck, bottleneck_of, gather, runner_of, turns_of
from medprism.inference.device import Runner
from medprism.models import NetworkConfig, Prism
from medprism.models.acn import ACN, ACNConfig
from medprism.models.mmformer import MmFormer, MmFormerConfig
from medprism.models.modality_encoder import EncoderConfig
from medprism.models.pmkl import Student, StudentConfig, Teacher, TeacherConfig
from tests.evaluation.fakes import entry

PATCH = (8, 8, 4)


def network(**keys):
    torch.manual_seed(0)
    return Prism(NetworkConfig(width=4, levels=3, **keys), 3, PATCH).eval()


class Turning(nn.Module):
    """Two maps: one that turns with the scan, one that does not care for it."""

    def embed(self, images, present):
        turned = F.avg_pool3d(images[present][:, None], 2).expand(-1, 2, -1, -1, -1)
        deaf = torch.randn((2, *turned.shape[2:]), generator=torch.Generator().manual_seed(0)).expand_as(turned)
        return torch.stack([turned, deaf], dim=1)


def test_rows_are_the_networks_own_maps():
    prism = network()
    entries = [entry("a"), entry("b", present=(True, False, True))]
    features = gather(runner_of(Bottleneck(prism), "cpu", "32"), entries, PATCH)
    crops = len(np.unique(features.crop))
    assert crops == 8
    assert features.vectors.shape == (4 * 3 + 4 * 2, 2, 4, 16)
    assert features.subject.tolist() == ["a"] * 12 + ["b"] * 8
    assert features.modality.tolist() == [0, 1, 2] * 4 + [0, 2] * 4
    assert features.place.tolist() == np.repeat([0, 1, 2, 3], 3).tolist() + np.repeat([0, 1, 2, 3], 2).tolist()
    images = entries[1].images()
    start = [round(0.25 * (side - size)) for side, size in zip(images.shape[1:], PATCH, strict=True)]
    crop = images[(2, *(slice(s, s + n) for s, n in zip(start, PATCH, strict=True)))]
    with torch.no_grad():
        z, x_h, _ = prism(torch.from_numpy(crop.copy())[None, None], torch.tensor([2]))
        turned, *_ = prism(torch.from_numpy(np.rot90(crop, 2).copy())[None, None], torch.tensor([2]))
    np.testing.assert_allclose(features.vectors[13, 0, 0], z.mean((0, 2, 3, 4)), atol=1e-5)
    np.testing.assert_allclose(features.vectors[13, 1, 0], x_h.mean((0, 2, 3, 4)), atol=1e-5)
    np.testing.assert_allclose(features.power[13, 0], z.square().sum(1).mean(), rtol=1e-4)
    distances = np.abs(features.vectors[13, 0] - turned.mean((0, 2, 3, 4)).numpy()).max(axis=1)
    assert distances[1:].min() < 1e-5 < distances[0]


def test_what_is_absent_is_not_read():
    entries = [entry("b", present=(True, False, True))]
    runner = runner_of(Bottleneck(network()), "cpu", "32")
    before = gather(runner, entries, PATCH)
    entries[0].volumes[1] = np.nan
    after = gather(runner, entries, PATCH)
    np.testing.assert_array_equal(before.vectors, after.vectors)


def test_a_map_that_turns_with_the_scan_has_no_error():
    features = gather(Runner(Turning(), torch.device("cpu")), [entry("a")], PATCH)
    assert features.error[:, 0].max() < 1e-10 < features.power[:, 0].min()
    assert features.error[:, 1].min() > 1  # a map that is always the same does not turn
    np.testing.assert_allclose(features.vectors[:, 0, 0], features.vectors[:, 0, 3], atol=1e-6)


def test_patches_that_are_no_square_are_not_turned():
    assert len(turns_of((8, 8, 4))) == 4
    assert len(turns_of((8, 4, 8))) == 1
    features = gather(
        runner_of(Bottleneck(Prism(NetworkConfig(width=4, levels=2), 3, (8, 4, 8))), "cpu", "32"),
        [entry("a")],
        (8, 4, 8),
    )
    assert features.vectors.shape[2] == 1
    assert np.isnan(features.error).all()


def test_the_prism_in_a_network_of_any_task():
    prism = network()
    downstream = nn.Module()
    downstream.prism = prism
    assert bottleneck_of(prism, {}).network is prism
    assert bottleneck_of(downstream, {"task": "segmentation"}).network is prism
    with pytest.raises(UserError, match="Linear for segmentation"):
        bottleneck_of(nn.Linear(1, 1), {"task": "segmentation"})


SHAPE = (EncoderConfig("shared"), 3, 2, (16, 16, 16))
OTHERS = [
    MmFormer(MmFormerConfig(2, 16, 2, 16), *SHAPE),
    Teacher(TeacherConfig(4), *SHAPE),
    Student(StudentConfig(4), EncoderConfig(), *SHAPE[1:], ("t1n", "t2w", "t2f")),
    ACN(ACNConfig(8), *SHAPE, ("t1n", "t2w", "t2f")),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: type(other).__name__)
def test_networks_without_a_prior_have_one_map_of_each_scan(other):
    images, present = torch.randn(2, 3, 16, 16, 16), torch.tensor([[True, False, True], [False, True, False]])
    images[~present] = torch.nan
    with torch.no_grad():
        maps = bottleneck_of(other.eval(), {}).embed(images, present)
        alone = bottleneck_of(other, {}).embed(images[:1], torch.tensor([[False, False, True]]))
    assert maps.shape[:2] == (3, 2)
    assert torch.isfinite(maps).all()
    assert torch.equal(maps[:, 0], maps[:, 1])
    torch.testing.assert_close(alone[0], maps[1], rtol=1e-3, atol=1e-4)  # a batch of one adds up in another order
    if not isinstance(other, ACN):
        with torch.no_grad():
            torch.testing.assert_close(other.embed(images, present)[present], maps[:, 0].mean(dim=(2, 3, 4)))


def test_subjects_of_air_are_refused():
    nothing = entry("a")
    nothing.masks[:] = False
    with pytest.raises(UserError, match="foreground"):
        gather(runner_of(Bottleneck(network()), "cpu", "32"), [nothing], PATCH)
