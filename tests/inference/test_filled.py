"""A model whose absent scans are filled by templates: what is filled, what is not read, what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import medprism
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.evaluation.classification import evaluate_classification
from medprism.evaluation.leakage import assert_no_leak
from medprism.evaluation.segmentation import evaluate_segmentation
from medprism.inference.classification import ClassificationModel
from medprism.inference.segmentation import SegmentationModel
from medprism.io.grid import Grid
from medprism.io.nifti import read_scan
from medprism.models import NetworkConfig
from medprism.models.atlas import sample
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.folder import load_model, save_model
from medprism.models.segmenter import Segmenter, SegmenterConfig
from medprism.models.templates import FOLDER
from medprism.training.card import common
from tests.training.segmenting import LABELS, REGIONS, make_labelled
from tests.training.templating import around

NAMES = ("t1n", "t2w", "t2f")
SHAPE, PATCH = NetworkConfig(width=4, levels=3), (16, 16, 16)
SEGMENTATION = {"task": "segmentation", "labels": LABELS, "regions": REGIONS, "classes": [0, 1, 4]}
CLASSIFICATION = {"task": "classification", "classes": {"well": 0, "ill": 1}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("lesions"), holes=(NAMES, ("t1n",)))


@pytest.fixture(scope="module")
def entry(cache):
    [one] = Cache.open(cache).subjects("test")
    return one


def save(cache, folder, network, templates, **told):
    """A model folder as training leaves it."""
    card = {**common(Cache.open(cache), network, network.prism, {}), **told}
    save_model(folder, network, {**card, "fill": "templates", "templates": templates.identity})
    templates.save(folder / FOLDER)
    return folder


def segmenter(**config):
    torch.manual_seed(0)
    return Segmenter(SHAPE, SegmenterConfig(**config), 3, 3, PATCH).eval()


def classifier():
    torch.manual_seed(0)
    return Classifier(SHAPE, ClassifierConfig(hidden=4), 3, 2, PATCH).eval()


@pytest.fixture(scope="module")
def templates(cache):
    return around(cache, NAMES[::-1])


@pytest.fixture(scope="module")
def outliner(cache, templates, tmp_path_factory):
    network = segmenter(combine="channels")
    return save(cache, tmp_path_factory.mktemp("model") / "model", network, templates, **SEGMENTATION)


def completed(entry, templates, present):
    """Scans where they are given, templates elsewhere, written out."""
    images = torch.from_numpy(entry.images())
    for channel, name in enumerate(NAMES):
        if not present[channel]:
            number, place = torch.tensor([templates.modalities.index(name)]), torch.from_numpy(entry.affine)[None]
            images[channel] = sample(templates.volumes.detach(), templates.grid, place, entry.shape, number)[0, 0]
    return images.numpy()


@pytest.mark.parametrize("given", [(True, False, False), (False, True, True)])
def test_a_model_sees_the_templates_of_what_is_absent_at_its_place(outliner, entry, templates, given):
    present, images = np.array(given), entry.images()
    seen = entry.foreground()[present].any(axis=0)
    model = medprism.load(outliner, "cpu")
    made = model.predict(np.where(present[:, None, None, None], images, np.nan), present, seen, affine=entry.affine)
    whole = model.predict(completed(entry, templates, given), np.ones(3, bool), seen)
    np.testing.assert_allclose(made, whole, atol=1e-6)
    assert np.abs(made - model.predict(images, np.ones(3, bool), seen)).max() > 1e-3
    assert np.array_equal(made, model.predict(images, np.ones(3, bool), seen, present, entry.affine))


def part(entry):
    """A window of the scans."""
    return entry.images()[:, 6:22, 8:24, 5:21]


@pytest.mark.parametrize("combine", ["channels", "fused"])
def test_nothing_absent_leaks_into_labels(cache, entry, templates, tmp_path, combine):
    model = medprism.load(save(cache, tmp_path / "m", segmenter(combine=combine), templates, **SEGMENTATION), "cpu")
    assert_no_leak(lambda images, present: model.predict(images, present, affine=entry.affine), part(entry))


def test_nothing_absent_leaks_into_classes(cache, entry, templates, tmp_path):
    model = medprism.load(save(cache, tmp_path / "m", classifier(), templates, **CLASSIFICATION), "cpu")
    assert_no_leak(lambda images, present: model.predict(images, present, affine=entry.affine), part(entry))


def test_a_saved_model_gives_the_very_bits(outliner, entry, templates, tmp_path):
    """Of the network and the templates that were saved, and of a copy of the folder."""
    network, card = load_model(outliner)
    network.load_state_dict(segmenter(combine="channels").state_dict())
    before = SegmentationModel(network, card, path=outliner, device="cpu")
    order = [templates.modalities.index(name) for name in NAMES]
    assert torch.equal(before.filling.volumes, templates.volumes.detach()[order])
    copy = medprism.load(shutil.copytree(outliner, tmp_path / "copy"), "cpu")
    present = np.array([False, True, False])
    results = [one.predict(entry.images(), present, affine=entry.affine) for one in (before, copy)]
    assert results[0].tobytes() == results[1].tobytes()


def test_complete_subjects_need_neither_place_nor_templates(outliner, entry):
    model = medprism.load(outliner, "cpu")
    everything = np.ones(3, bool)
    far = entry.affine.copy()
    far[:3, 3] += 500
    made = model.predict(entry.images(), everything)
    assert np.array_equal(made, model.predict(entry.images(), everything, affine=far))
    with pytest.raises(UserError, match="templates fill absent ones; give affine"):
        model.predict(entry.images(), np.array([True, False, False]))


def test_scans_elsewhere_are_refused_in_mm(cache, outliner, entry):
    model = medprism.load(outliner, "cpu")
    scan = read_scan(cache.parent / entry.subject / "t1n.nii.gz")
    affine = scan.grid.affine.copy()
    affine[:3, 3] += (0, 0, 40)
    moved = replace(scan, grid=Grid(scan.grid.shape, affine))
    with pytest.raises(UserError, match=r"scans within 5 mm of the templates' grid, got some that reach [34]\d\.\d mm"):
        model.segment({"t1n": moved})
    far = entry.affine.copy()
    far[2, 3] += 40
    with pytest.raises(UserError, match="register them to the space of the templates"):
        model.predict(entry.images(), np.array([True, False, False]), affine=far)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_an_evaluation_names_the_subject_that_is_elsewhere(cache, entry, templates, tmp_path, task):
    x, y, z = templates.grid.shape
    small = around(cache, NAMES)
    small.grid = templates.grid.crop((0, 0, 0), (x // 2, y, z))
    small.volumes.data = small.volumes.data[:, : x // 2]
    opened = Cache.open(cache)
    if task == "segmentation":
        folder = save(cache, tmp_path / "m", segmenter(), small, **SEGMENTATION)
        evaluate, model = evaluate_segmentation, SegmentationModel.load(folder, "cpu")
    else:
        folder = save(cache, tmp_path / "m", classifier(), small, **CLASSIFICATION)
        evaluate, model = evaluate_classification, ClassificationModel.load(folder, "cpu")
        opened.subjects("test")[0].__dict__["class_label"] = 1
    with pytest.raises(UserError, match=rf"^{entry.subject}: expected scans within 5 mm"):
        evaluate(model, opened, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_templates_are_refused(cache, outliner, tmp_path):
    copy = shutil.copytree(outliner, tmp_path / "copy")
    around(cache, NAMES, seed=1).save(copy / FOLDER, force=True)
    with pytest.raises(UserError, match="altered or are those of another model"):
        medprism.load(copy, "cpu")
    shutil.rmtree(copy / FOLDER)
    with pytest.raises(UserError, match="expected templates"):
        medprism.load(copy, "cpu")
