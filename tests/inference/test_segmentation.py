import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

import medprism
from medprism import models
from medprism.data.recipe import Recipe
from medprism.data.volume import assemble
from medprism.errors import UserError
from medprism.inference.model import Model
from medprism.inference.segmentation import SegmentationModel
from medprism.io import Grid, new_scan, read_scan
from medprism.models.folder import save_model
from tests.inference.tiny import (
    AFFINES,
    MODALITIES,
    Bright,
    Mean,
    build,
    card,
    head,
    segmentation_card,
    write,
)
from tests.leaks import assert_absent_is_unread


@pytest.fixture(autouse=True)
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", build)


def model(network=None, **extra):
    return SegmentationModel(network or Bright(), segmentation_card(**extra), device="cpu")


def scan(seed=0, shape=(20, 24, 18), affine=AFFINES["ras"], **options):
    return new_scan(head(shape, seed, **options), Grid(shape, affine))


def by_hand(scans):
    """The labels that `Bright` must give on the grid of the prepared volume."""
    volume = assemble(scans, Recipe.of(MODALITIES))
    return np.array([0, 1, 4])[np.digitize(volume.images[volume.present].mean(0), [-2.75, 0.5])]


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 1.0]])
def test_a_map_is_on_the_grid_of_its_scan(tmp_path, affine, spacing):
    values = np.where(head() == 0, -1000, 5 * (head() - 100)).astype(np.float32)
    path = write(tmp_path / "in" / "a.nii.gz", values, affine)
    network = Bright(centres=(-2.0, -0.25, 0.25))  # a CT's normalised values are HU / 500
    result = model(network, modalities=("ct",), spacing=spacing).segment({"ct": path})
    out, there = nib.load(result.save(tmp_path / "out" / "seg.nii.gz")), nib.load(path)
    assert out.shape == there.shape
    assert out.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(out.affine, there.affine)
    for name in ("sform_code", "qform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(out.header[name], there.header[name])
    made, wanted = np.asarray(out.dataobj), np.array([0, 1, 4])[np.digitize(values, [-562.5, 0])]
    if spacing is None:
        np.testing.assert_array_equal(made, wanted)
    else:  # two interpolations move an outline by a part of a voxel
        assert (made == wanted).mean() > 0.93
        for label in (0, 1, 4):
            core = binary_erosion(wanted == label, iterations=2)
            assert (made == wanted)[core].all()


def test_probabilities_are_of_each_label_and_agree_with_the_map():
    result = model().segment({"t1n": scan()}, probabilities=True)
    assert list(result.probabilities) == ["dark", "bright"]
    dark, bright = result.probabilities.values()
    assert dark.dtype == np.float32
    background = 1 - dark - bright
    assert background.min() > -1e-5
    labels = np.array([0, 1, 4])[np.stack([background, dark, bright]).argmax(0)]
    np.testing.assert_array_equal(labels, result.array)
    assert model().segment({"t1n": scan()}).probabilities is None


def test_probabilities_of_windows_are_a_softmax():
    images = np.random.default_rng(0).normal(size=(3, 12, 13, 9)).astype(np.float32)
    present = np.array([True, True, False])
    out = model().predict(images, present)
    assert out.shape == (3, 12, 13, 9)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.sum(0), 1, atol=1e-5)
    logits = Bright().segment(torch.from_numpy(images)[None], torch.from_numpy(present)[None])[0]
    np.testing.assert_allclose(out, logits.softmax(0).detach(), atol=1e-5)


def test_where_no_window_lies_there_is_background():
    images = np.zeros((3, 40, 40, 40), np.float32)
    images[:, :4, :4, :4] = 2
    foreground = images[0] != 0
    out = model().predict(images, np.ones(3, bool), foreground)
    assert (out[:, -1, -1, -1] == [1, 0, 0]).all()
    assert out[2, 0, 0, 0] > 0.9


def test_no_method_reads_what_is_absent():
    images = np.random.default_rng(1).normal(size=(3, 12, 9, 10)).astype(np.float32)
    assert_absent_is_unread(model().predict, images)
    assert_absent_is_unread(Model(Mean(), card(), device="cpu").predict, images)
    with pytest.raises(AssertionError, match="leak"):
        assert_absent_is_unread(lambda images, present: np.where(np.isfinite(images), images, 0).sum(0), images)


def test_any_subset_in_any_order_one_model():
    scans = {"t1n": scan(0), "t2w": scan(1), "t2f": scan(2)}
    whole = model()
    for names in (["t1n"], ["t2f"], ["t1n", "t2f"], ["t1n", "t2w", "t2f"]):
        given = {name: scans[name] for name in names}
        result = whole.segment(given)
        wanted = np.bincount(by_hand(given).ravel(), minlength=5)
        assert np.array_equal(np.bincount(result.array.ravel(), minlength=5)[1:], wanted[1:])
        assert (wanted[[1, 4]] > 0).all()
        again = whole.segment(dict(reversed(given.items())))
        assert np.array_equal(result.array, again.array)
        assert again.sidecar["SourceModalities"] == names


def test_the_reference_decides_on_the_grid():
    scans = {"t1n": scan(0), "t2w": scan(1, (10, 12, 9), np.diag([2.0, 2, 2, 1]))}
    assert model().segment(scans).array.shape == (20, 24, 18)
    small = model().segment(scans, reference="T2")
    assert small.array.shape == (10, 12, 9)
    assert small.sidecar["GridOf"] == "t2w"
    assert model(reference="t2w").segment(scans).array.shape == (10, 12, 9)
    with pytest.raises(UserError, match="reference among the given"):
        model().segment(scans, reference="t2f")


def test_labels_above_255_need_two_bytes(tmp_path):
    wide = {"labels": {"background": 0, "a": 1, "b": 300}, "classes": [0, 1, 300], "regions": {}}
    result = model(**wide).segment({"t1n": scan()})
    assert result.array.dtype == np.uint16
    assert result.regions == {"a": [1], "b": [300]}  # each label, where nobody named any
    assert nib.load(result.save(tmp_path / "seg.nii")).get_data_dtype() == np.uint16


def test_the_sidecar_says_what_it_is(tmp_path):
    rows = [{"method": "model", "given": ["t1n"], "region": "all", "metric": "dice", "mean": 0.8, "n": 7}]
    one = model(metrics={"split": "validation", "rows": rows}, cohort="glioma")
    result = one.segment({"t1n": scan(affine=np.diag([2.0, 2, 2, 1]))})
    result.save(tmp_path / "seg.nii.gz")
    told = json.loads((tmp_path / "seg.json").read_text())
    assert told["Synthetic"] is False
    assert told["Labels"] == {"background": 0, "dark": 1, "bright": 4}
    assert told["ExpectedDice"] == {"all": {"mean": 0.8, "ci95": None, "n": 7, "split": "validation"}}
    assert told["VolumesMl"]["all"] == pytest.approx(0.008 * (result.array > 0).sum())
    assert told["VolumesMl"]["bright"] == pytest.approx(0.008 * result.mask("bright").sum())
    assert told["Small"] is None
    assert told["Covered"] == 1
    assert one.segment({"t2w": scan()}).sidecar["ExpectedDice"] is None


def test_the_raw_map_is_kept_beside_the_ruled_one(tmp_path):
    plain = model().segment({"t1n": scan()})
    volume = 1000 * plain.volumes_ml["bright"]
    result = model().segment({"t1n": scan()}, small={"bright": volume + 1}, probabilities=True)
    assert np.array_equal(result.raw, plain.array)
    assert np.array_equal(result.array, np.where(plain.array == 4, 1, plain.array))  # the rest of "all"
    result.save(tmp_path / "seg.nii.gz")
    names = ["seg", "seg_bright_probability", "seg_dark_probability", "seg_raw"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(n + e for n in names for e in (".json", ".nii.gz"))
    ruled, raw = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("seg", "seg_raw"))
    assert ruled["Small"] == {"bright": {"LeastMm3": volume + 1, "Becomes": 1}}
    assert (ruled["VolumesMl"]["bright"], raw["VolumesMl"]["bright"]) == (0, plain.volumes_ml["bright"])
    assert raw["Small"] is None
    assert model().segment({"t1n": scan()}, small={"bright": volume}).array.max() == 4
    with pytest.raises(UserError, match="region out of all, bright"):
        model().segment({"t1n": scan()}, small={"ET": 500})


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path):
    result = model().segment({"t1n": scan()}, probabilities=True)
    (tmp_path / "seg_dark_probability.nii.gz").write_text("mine")
    with pytest.raises(UserError, match="--force"):
        result.save(tmp_path / "seg.nii.gz")
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match=r"\.nii"):
        result.save(tmp_path / "seg.png")
    result.save(tmp_path / "seg.nii.gz", force=True)
    assert read_scan(tmp_path / "seg_dark_probability.nii.gz").array.max() <= 1


def test_labels_whose_names_differ_by_signs_have_files_of_their_own(tmp_path):
    odd = {"labels": {"background": 0, "a b": 1, "a/b": 4}}
    model(**odd).segment({"t1n": scan()}, probabilities=True).save(tmp_path / "seg.nii.gz")
    assert len(list(tmp_path.glob("*_probability.nii.gz"))) == 2


def test_what_not_all_scans_see_is_told(caplog):
    far = np.diag([1.0, 1, 1, 1])
    far[0, 3] = 9
    with caplog.at_level(logging.WARNING):
        result = model().segment({"t1n": scan(), "t2w": scan(1, affine=far)})
    assert 0.3 < result.sidecar["Covered"] < 0.7
    assert "without a look" in caplog.text
    assert (result.array[:9] == 0).all()


def test_progress_ends_at_one():
    told = []
    model().segment({"t1n": scan()}, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


# folders and tasks


def folders(tmp_path):
    save_model(tmp_path / "seg" / "model", Bright(), segmentation_card())
    save_model(tmp_path / "gen", Mean(), card())
    return tmp_path / "seg", tmp_path / "gen"


def test_load_gives_the_class_of_the_task(tmp_path):
    segmenter, generator = folders(tmp_path)
    loaded = medprism.load(segmenter, "cpu")
    assert isinstance(loaded, SegmentationModel)
    assert loaded.path == segmenter / "model"
    result = loaded.segment({"t1n": scan()})
    assert np.array_equal(result.array, model().segment({"t1n": scan()}).array)
    assert result.sidecar["ModelSHA256"] == loaded.card["sha256"]
    assert isinstance(medprism.load(generator, "cpu"), Model)


def test_a_model_of_another_task_is_refused_with_the_verb_to_use(tmp_path):
    segmenter, generator = folders(tmp_path)
    with pytest.raises(UserError, match=r"for segmentation, got one for transfer.*medprism synthesize"):
        SegmentationModel.load(generator)
    with pytest.raises(UserError, match=r"for transfer, got one for segmentation.*medprism segment"):
        Model.load(segmenter)
    strange = save_model(tmp_path / "odd", Mean(), card(task="juggling"))
    for load in (medprism.load, Model.load):
        with pytest.raises(UserError, match="juggling"):
            load(strange)


def test_a_card_without_classes_is_refused():
    for extra in ({"classes": []}, {"labels": {}}):
        with pytest.raises(UserError, match="card"):
            model(**extra)
