"""Absent scans: the check itself, and every network and model that is in the package."""

import numpy as np
import pytest
import torch

from medprism.evaluation.leakage import assert_no_leak
from medprism.models import NetworkConfig, Prism
from medprism.models.segmenter import Segmenter, SegmenterConfig


def scans(batch=2, modalities=3, side=16):
    return torch.randn(batch, modalities, side, side, side, generator=torch.Generator().manual_seed(0))


def honest(images, present):
    return torch.where(present[..., None, None, None], images, 0).sum(dim=1)


def test_what_reads_only_what_is_given_passes():
    assert_no_leak(honest, scans(side=4))
    alone = scans(side=4)[0].numpy()
    assert_no_leak(lambda images, present: images[present].mean(axis=0), alone)
    assert_no_leak(lambda images, present: [images[present].max(), (images[present],)], alone)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (lambda images, present: images.nan_to_num().sum(dim=1), "noise"),
        (lambda images, present: images * present[..., None, None, None], "finite"),
        (lambda images, present: honest(images, present) + images.isnan().any(), "NaN"),
        (lambda images, present: honest(images, present) + 1e-6 * images.nan_to_num()[:, 2:].mean(), "noise"),
        (lambda images, present: honest(images, present.any(dim=0).expand(*present.shape)), "noise"),
    ],
)
def test_what_reads_more_is_found(run, told):
    with pytest.raises(AssertionError, match=told):
        assert_no_leak(run, scans(side=4))


def test_arrays_are_checked_too():
    with pytest.raises(AssertionError, match="given"):
        assert_no_leak(lambda images, present: np.nan_to_num(images).mean(axis=0), scans(side=4)[0].numpy())


@pytest.mark.parametrize("source", ["repeated", "tagged"])
def test_prism(source):
    torch.manual_seed(0)
    network = Prism(NetworkConfig(width=4, levels=3, source=source), 3, (16, 16, 16)).eval()
    with torch.no_grad():
        assert_no_leak(network.generate, scans())
        assert_no_leak(network.embed, scans())


@pytest.mark.parametrize("config", [{"fusion": "mean"}, {"fusion": "gates"}, {"combine": "channels"}])
@pytest.mark.parametrize("source", ["repeated", "tagged"])
def test_segmenter(source, config):
    torch.manual_seed(0)
    shape = NetworkConfig(width=4, levels=3, source=source)
    network = Segmenter(shape, SegmenterConfig(**config), 3, 2, (16, 16, 16)).eval()
    with torch.no_grad():
        assert_no_leak(network.segment, scans())
