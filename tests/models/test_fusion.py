"""Fusion of several scans: where it starts, what it weighs, what it does not depend on."""

import pytest
import torch
from torch import nn

from medprism.models.fusion import GatedFusion, MeanFusion

CHANNELS = (4, 6)
OWNER, SOURCE = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 1, 0, 2])
"""Three subjects with three, one and two scans."""


def features(rows=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, c, *[8 // (k + 1)] * 3, generator=draw) for k, c in enumerate(CHANNELS)]


def trained(seed=0):
    """Gates, maps and shifts that are far from where they start."""
    fusion, draw = GatedFusion(CHANNELS, 3), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter += torch.randn(parameter.shape, generator=draw)
    return fusion


def same(ones, others):
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_mean():
    for feature, fused in zip(features(), MeanFusion()(features(), OWNER, SOURCE, 3), strict=True):
        torch.testing.assert_close(fused[0], feature[:3].mean(0))
        torch.testing.assert_close(fused[1], feature[3])
        torch.testing.assert_close(fused[2], feature[4:].mean(0))


def test_gates_start_as_the_mean():
    same(GatedFusion(CHANNELS, 3)(features(), OWNER, SOURCE, 3), MeanFusion()(features(), OWNER, SOURCE, 3))


def test_weights_are_a_softmax_over_the_given_scans():
    """Gates that give each modality one score: the weights are known."""
    fusion, scores = GatedFusion(CHANNELS, 3), torch.tensor([0.5, -1.0, 2.0])
    for gate in fusion.gates:
        nn.init.constant_(gate.weight, 0)
        gate.bias.data = scores
    bounded = 10 * torch.tanh(scores / 10)
    for feature, fused in zip(features(), fusion(features(), OWNER, SOURCE, 3), strict=True):
        for subject in range(3):
            rows = subject == OWNER
            weight = torch.softmax(bounded[SOURCE[rows]], 0)
            torch.testing.assert_close(fused[subject], torch.einsum("n,ncxyz->cxyz", weight, feature[rows]))


def test_each_modality_has_a_map_of_its_own():
    """One scan a subject: what comes out is its modality's linear map, and no weight."""
    fusion, owner, source = trained(), torch.arange(3), torch.tensor([2, 0, 1])
    for level, (feature, fused) in enumerate(zip(features(3), fusion(features(3), owner, source, 3), strict=True)):
        for row, modality in enumerate(source):
            mapped = torch.einsum("oc,cxyz->oxyz", fusion.maps[level][modality], feature[row])
            expected = mapped + fusion.shifts[level][modality][:, None, None, None]
            torch.testing.assert_close(fused[row], expected, rtol=1e-5, atol=1e-5)


def test_a_scan_alone_is_never_weighed():
    """Nor beside subjects with several: whatever the gates say, it counts as it is."""
    one, other = trained(), trained()
    with torch.no_grad():
        for gate in other.gates:
            gate.weight *= -3
            gate.bias += 7
    first, second = one(features(), OWNER, SOURCE, 3), other(features(), OWNER, SOURCE, 3)
    same([level[1] for level in first], [level[1] for level in second])
    assert not any(torch.allclose(a[0], b[0]) for a, b in zip(first, second, strict=True))
    alone = [feature[3:4] for feature in features()]
    same([level[1:2] for level in first], one(alone, torch.tensor([0]), SOURCE[3:4], 1))


def test_a_batch_equals_its_subjects_one_by_one():
    fusion = trained()
    whole = fusion(features(), OWNER, SOURCE, 3)
    for subject in range(3):
        rows = subject == OWNER
        own = fusion([f[rows] for f in features()], torch.zeros(int(rows.sum()), dtype=torch.int64), SOURCE[rows], 1)
        same([level[subject : subject + 1] for level in whole], own)


@pytest.mark.parametrize("rows", [[5, 3, 1, 0, 4, 2], [2, 1, 0, 3, 5, 4]])
def test_the_order_of_scans_does_not_matter(rows):
    fusion = trained()
    mixed = fusion([feature[rows] for feature in features()], OWNER[rows], SOURCE[rows], 3)
    same(mixed, fusion(features(), OWNER, SOURCE, 3))


def test_the_order_of_modalities_does_not_matter():
    """Modality m becomes place[m], in the data and in the parameters."""
    fusion, moved, place = trained(), GatedFusion(CHANNELS, 3), torch.tensor([2, 0, 1])
    with torch.no_grad():
        for level in range(len(CHANNELS)):
            moved.maps[level][place] = fusion.maps[level]
            moved.shifts[level][place] = fusion.shifts[level]
            moved.gates[level].weight[place] = fusion.gates[level].weight
            moved.gates[level].bias[place] = fusion.gates[level].bias
    same(moved(features(), OWNER, place[SOURCE], 3), fusion(features(), OWNER, SOURCE, 3))


def test_no_score_is_too_large():
    fusion = GatedFusion(CHANNELS, 3)
    for gate in fusion.gates:
        gate.bias.data = torch.tensor([1e6, -1e6, 0.0])
    given = [feature.requires_grad_() for feature in features()]
    fused = fusion(given, OWNER, SOURCE, 3)
    sum(level.sum() for level in fused).backward()
    assert all(p.grad.isfinite().all() for p in (*given, *fusion.parameters()))
    for feature, level in zip(given, fused, strict=True):
        torch.testing.assert_close(level[0], feature[0], rtol=1e-3, atol=1e-3)  # the first outweighs the others
