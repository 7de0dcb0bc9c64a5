"""Templates before a training lie around the cohort; what does not fit is told before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medprism.data.cache import Cache
from medprism.data.patches import PatchDataset
from medprism.errors import UserError
from medprism.io.geometry import resample
from medprism.io.grid import Grid
from medprism.models.atlas import head_grid
from medprism.models.templates import Templates, TemplatesConfig
from medprism.training import templates as module
from medprism.training.templates import begun, reach
from tests.training.runs import MODALITIES, make_cache


@pytest.fixture
def opened(cache):
    return Cache.open(cache)


def test_they_hold_all_crops_even_those_that_are_larger_than_a_scan(opened):
    patch = (40, 16, 16)  # wider than the scans
    templates = begun(TemplatesConfig(spacing=2.0, tolerance=0.0), opened, patch, seed=4)
    assert templates.modalities == MODALITIES
    assert templates.grid.spacing == (2.0, 2.0, 2.0)
    assert torch.equal(templates.volumes, Templates(MODALITIES, templates.grid, seed=4).volumes)
    dataset = PatchDataset(opened.subjects("training"), patch, patches_per_subject=4, seed=1, augment=False)
    for index in range(len(dataset)):
        templates.check_cover(dataset[0, index].affine[None], patch)
    field = reach(Grid((10, 20, 13), np.eye(4)), (16, 16, 16))
    assert field.shape == (16, 20, 16)
    assert field.affine[:3, 3].tolist() == [-3, 0, -2]


def test_the_mean_is_that_of_the_training_scans_that_there_are(opened):
    templates = begun(TemplatesConfig(start="mean", spacing=1.0), opened, (16, 16, 16), seed=0)
    for place in range(3):
        scans = [
            resample(entry.images()[place], entry.grid, templates.grid, fill=float(entry.background[place]))
            for entry in opened.subjects("training")
            if entry.present[place]
        ]
        assert len(scans) in (2, 3)
        found = templates.volumes[place].detach().numpy()
        np.testing.assert_allclose(found, np.mean(scans, axis=0), atol=1e-5)


def test_a_mean_is_of_so_many_scans_at_most(opened, monkeypatch):
    monkeypatch.setattr(module, "MOST_SCANS", 1)
    one = begun(TemplatesConfig(start="mean", spacing=2.0), opened, (16, 16, 16), seed=0)
    again = begun(TemplatesConfig(start="mean", spacing=2.0), opened, (16, 16, 16), seed=0)
    assert torch.equal(one.volumes, again.volumes)


def test_a_modality_that_no_training_subject_has_keeps_its_noise_and_is_told(tmp_path, caplog):
    cache = Cache.open(make_cache(tmp_path, holes=(("t1n", "t2w"), ("t1n",))))
    templates = begun(TemplatesConfig(start="mean", spacing=3.0), cache, (16, 16, 16), seed=0)
    assert "no training subject has t2f: its template stays noise" in caplog.text
    noise = Templates(MODALITIES, templates.grid, seed=0).volumes
    assert [torch.equal(*pair) for pair in zip(templates.volumes, noise, strict=True)] == [False, False, True]


def moved(cache, millimetres):
    entry = cache.subjects("training")[1]
    entry.affine[0, 3] += millimetres
    return entry


def test_scans_beyond_a_head_are_refused_by_how_far(opened):
    templates = begun(TemplatesConfig(grid="head", spacing=3.0), opened, (16, 16, 16), seed=0)
    assert templates.grid.shape == head_grid(3.0).shape
    moved(opened, 200)
    with pytest.raises(UserError, match=r"cover each crop to 5 mm, got one of s1 that reaches \d+\.\d mm beyond it"):
        begun(TemplatesConfig(grid="head", spacing=3.0), opened, (16, 16, 16), seed=0)


def test_a_cohort_that_is_not_registered_is_told_or_refused(opened, caplog, monkeypatch):
    assert not caplog.text
    moved(opened, 90)
    begun(TemplatesConfig(spacing=2.0), opened, (16, 16, 16), seed=0)
    assert "times as large as the largest scan" in caplog.text
    monkeypatch.setattr(module, "MOST_VOXELS", 1000)
    with pytest.raises(UserError, match=r"templates of at most .* register the scans to one space, or raise brainmvp"):
        begun(TemplatesConfig(spacing=2.0), opened, (16, 16, 16), seed=0)


@pytest.mark.parametrize("changes", [{"spacing": 0.0}, {"tolerance": -1.0}])
def test_bad_options_are_refused(changes):
    with pytest.raises(UserError, match=r"templates\."):
        replace(TemplatesConfig(), **changes)
