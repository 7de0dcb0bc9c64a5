import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from medprism import models
from medprism.data.recipe import Recipe
from medprism.data.volume import assemble
from medprism.errors import UserError
from medprism.inference.model import Model
from medprism.io import Grid, new_scan, read_scan
from tests.inference.tiny import AFFINES, MODALITIES, TYPICAL, Mean, Smooth, card, head, model_folder, write


@pytest.fixture(autouse=True)
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", lambda architecture: Mean())


def model(network=None, **extra):
    return Model(network or Mean(), card(**extra), device="cpu")


def scan(seed=0, shape=(20, 24, 18), affine=AFFINES["ras"]):
    return new_scan(head(shape, seed), Grid(shape, affine))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 1.0]])
def test_what_goes_in_comes_out_on_its_own_grid(tmp_path, affine, spacing):
    path = write(tmp_path / "in" / "a.nii.gz", head(), affine)
    own = assemble({"t1n": read_scan(path)}, Recipe.of(MODALITIES, spacing=spacing)).scales
    result = model(typical={**TYPICAL, **own}, spacing=spacing).synthesize({"t1n": path}, "t1n")["t1n"]
    out = nib.load(result.save(tmp_path / "out" / "t1n.nii.gz"))
    there = nib.load(path)
    assert out.shape == there.shape
    assert out.get_data_dtype() == np.float32
    np.testing.assert_array_equal(out.affine, there.affine)
    for name in ("sform_code", "qform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(out.header[name], there.header[name])
    made, wanted = out.get_fdata(), there.get_fdata()
    assert ((made == 0) == (wanted == 0)).all()
    if spacing is None:
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-3)
    else:  # two interpolations leave a smooth image alone, but not its edge
        core = binary_erosion(wanted != 0, iterations=3)
        assert np.abs(made - wanted)[core].max() < 1.5


def test_all_means_all_that_are_absent_in_the_models_order():
    results = model().synthesize({"T2": scan()})
    assert list(results) == ["t1n", "t2f"]
    assert list(model().synthesize({"t2w": scan()}, ["flair", "t2w"])) == ["t2w", "t2f"]


def test_intensities_are_the_typical_ones_and_the_background_zero():
    volume = assemble({"t1n": scan()}, Recipe.of(MODALITIES))
    z, inside = volume.images[0], volume.foreground[0]
    out = model().synthesize({"t1n": scan()}, "t2f")["t2f"]
    mask = scan().array != 0
    assert (out.array[~mask] == 0).all()
    np.testing.assert_allclose(np.sort(out.array[mask]), np.sort(z[inside] * 80 + 500), rtol=1e-5)
    assert out.sidecar["Range"] == [100.0, 900.0]
    unit = model().synthesize({"t1n": scan()}, "t2f", intensity="unit")["t2f"]
    np.testing.assert_allclose(unit.array[mask], (out.array[mask] - 100) / 800, atol=1e-5)
    assert unit.sidecar["Range"] == pytest.approx([0, 1])
    assert unit.sidecar["Unit"] == "1"


def test_ct_is_made_in_hu_with_air_around():
    typical = {**TYPICAL, "ct": type(TYPICAL["t1n"])(0.0, 500.0, -2.0, 2.0)}
    out = model(modalities=(*MODALITIES, "ct"), typical=typical).synthesize({"t1n": scan()}, "ct")["ct"]
    assert (out.array[scan().array == 0] == -1000).all()
    assert out.sidecar["Unit"] == "HU"
    assert out.sidecar["Range"] == [-1000.0, 1000.0]


def test_the_order_of_the_given_scans_is_irrelevant():
    scans = {"t1n": scan(0), "t2w": scan(1)}
    a = model(Smooth()).synthesize(scans)["t2f"]
    b = model(Smooth()).synthesize(dict(reversed(scans.items())))["t2f"]
    assert np.array_equal(a.array, b.array)
    assert a.sidecar["SourceModalities"] == b.sidecar["SourceModalities"] == ["t1n", "t2w"]


def test_the_reference_decides_on_the_grid():
    scans = {
        "t1n": scan(0),
        "t2w": scan(1, (10, 12, 9), np.diag([2.0, 2, 2, 1])),
    }
    assert model().synthesize(scans)["t2f"].array.shape == (20, 24, 18)
    assert model().synthesize(scans, reference="T2")["t2f"].array.shape == (10, 12, 9)
    assert model(reference="t2w").synthesize(scans)["t2f"].array.shape == (10, 12, 9)
    with pytest.raises(UserError, match="reference among the given"):
        model().synthesize(scans, reference="t2f")


def test_predict_never_reads_what_is_absent():
    images = np.random.default_rng(0).normal(size=(3, 12, 13, 9)).astype(np.float32)
    present = np.array([True, False, True])
    clean = model(Smooth()).predict(images, present)
    images[1] = np.nan
    assert np.array_equal(model(Smooth()).predict(images, present), clean)
    assert np.isfinite(model().embed(images, present)).all()
    assert clean.dtype == np.float32


def test_arrays_that_torch_cannot_share_are_copied(recwarn):
    images, present = np.ones((3, 9, 9, 9), np.float32), np.array([True, True, False])
    images[:, 4] = 2
    whole = model().predict(images, present)
    images.flags.writeable = present.flags.writeable = False
    assert np.array_equal(model().predict(images, present), whole)
    assert np.array_equal(model().predict(images[:, ::-1], present), whole[:, ::-1])
    assert not recwarn.list


def test_predict_of_a_pointwise_network_is_the_network_clipped():
    images = 3 * np.random.default_rng(0).normal(size=(3, 12, 13, 9)).astype(np.float32)
    out = model().predict(images, np.array([True, True, False]))
    np.testing.assert_allclose(out[2], np.clip(images[:2].mean(0), -5, 5), rtol=1e-5, atol=1e-5)
    assert np.abs(images[:2].mean(0)).max() > 5


def test_embedding_of_a_volume():
    images = np.full((3, 9, 9, 9), 2, np.float32)
    images[:, 0] = 0  # else all would be border, thus air
    out = model().embed(np.pad(images, ((0, 0), (3, 3), (3, 3), (3, 3))), np.array([True, True, False]))
    assert out.shape == (3, 4)
    assert (out[2] == 0).all()
    assert (out[:2] > 0).all()


def test_no_uncertainty_of_an_equivariant_network_with_one_source():
    out = model(Smooth(), patch_size=[24, 24, 24]).synthesize({"t1n": scan()}, "t2f", uncertainty=True)["t2f"]
    assert out.uncertainty.max() < 1e-3 * out.array.max()
    assert out.uncertainty.shape == out.array.shape


def test_uncertainty_of_two_sources_is_in_the_outputs_unit():
    scans = {"t1n": scan(0), "t2w": scan(1)}
    volume = assemble(scans, Recipe.of(MODALITIES))
    half = np.abs(volume.images[0] - volume.images[1])[volume.foreground.any(0)] / 2
    out = model().synthesize(scans, "t2f", uncertainty=True)["t2f"]
    np.testing.assert_allclose(np.sort(out.uncertainty[scan().array != 0]), np.sort(half * 80), rtol=1e-3, atol=1e-2)
    assert (out.uncertainty[scan().array == 0] == 0).all()
    single = model().synthesize(scans, "t2f", uncertainty=True, intensity="unit")["t2f"]
    np.testing.assert_allclose(single.uncertainty, out.uncertainty / 800, rtol=1e-4, atol=1e-6)


def test_progress_ends_at_one_and_never_falls():
    parts = []
    model().synthesize({"t1n": scan()}, uncertainty=True, progress=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == pytest.approx(1)


def test_a_loaded_model_gives_the_same(tmp_path):
    folder = model_folder(tmp_path / "run" / "model")
    loaded = Model.load(tmp_path / "run", "cpu")
    out = loaded.synthesize({"t1n": scan()}, "t2f")["t2f"]
    assert np.array_equal(out.array, model().synthesize({"t1n": scan()}, "t2f")["t2f"].array)
    assert loaded.path == folder
    assert out.sidecar["ModelSHA256"] == loaded.card["sha256"]
    assert out.sidecar["Synthetic"] is True
    assert loaded.modalities == MODALITIES


def test_half_precision_is_near(tmp_path):
    half = Model(Mean(), card(), device="cpu", precision="bf16").synthesize({"t1n": scan()}, "t2f")["t2f"]
    full = model().synthesize({"t1n": scan()}, "t2f")["t2f"]
    np.testing.assert_allclose(half.array, full.array, rtol=0.02, atol=1)


def apart():
    return scan(affine=np.array([[1.0, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


def hollow():
    array = head()
    array[8, 8, 8] = np.nan
    return new_scan(array, scan().grid)


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        ({}, "all", "at least one scan of t1n, t2w, t2f"),
        ({"ct": "a.nii.gz"}, "all", "which the model knows, got ct"),
        ({"t1x": "a.nii.gz"}, "all", "expected a modality"),
        ({"t1n": "a.nii.gz", "T1": "b.nii.gz"}, "all", "one scan of t1n"),
        ({"t1n": "nowhere.nii.gz"}, "all", "no such file"),
        ({"t1n": scan()}, "ct", "expected a target among"),
        ({"t1n": scan()}, "dog", "expected a modality"),
        ({"t1n": scan(), "t2w": scan(1), "t2f": scan(2)}, "all", "name a --target"),
        ({"t1n": scan(), "t2w": apart()}, "all", "one world space"),
        ({"t1n": hollow()}, "all", "NaN"),
        ({"t1n": new_scan(np.zeros((9, 9, 9), np.float32), Grid((9, 9, 9), np.eye(4)))}, "all", "in every voxel"),
    ],
)
def test_bad_input_is_refused_in_one_line(images, target, message):
    with pytest.raises(UserError, match=message) as caught:
        model().synthesize(images, target)
    assert "\n" not in str(caught.value)


def test_a_ct_given_as_pet_has_no_foreground():
    air = np.full((9, 9, 9), -1000, np.float32)
    air[4] = -900
    with pytest.raises(UserError, match="foreground"):
        model(modalities=(*MODALITIES, "pet")).synthesize({"pet": new_scan(air, Grid((9, 9, 9), np.eye(4)))})


def test_windows_are_skipped_outside_the_body():
    big = np.zeros((60, 60, 60), np.float32)
    big[5:15, 5:15, 5:15] = big[45:55, 45:55, 45:55] = head((10, 10, 10))
    sizes = []

    class Spy(Mean):
        def generate(self, images, present):
            sizes.append(len(images))
            return super().generate(images, present)

    model(Spy()).synthesize({"t1n": new_scan(big, Grid(big.shape, np.eye(4)))}, "t2f")
    assert sum(sizes) < 150  # of 12³ with half overlap


def test_torch_is_left_as_it_was():
    before = torch.is_grad_enabled()
    model().synthesize({"t1n": scan()}, "t2f")
    assert torch.is_grad_enabled() is before
