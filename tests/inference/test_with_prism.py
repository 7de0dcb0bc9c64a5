"""The package's own network through a model folder, and real scans through everything but a network."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import medprism
from medprism.data.recipe import Recipe
from medprism.data.volume import assemble
from medprism.inference.model import Model
from medprism.io import read_scan
from medprism.models import NetworkConfig, Prism
from medprism.models.folder import save_model
from tests.inference.tiny import TYPICAL, Mean, card, head, write

REAL = Path(os.environ.get("MEDPRISM_REAL_DATA", "nowhere"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    network = Prism(NetworkConfig(width=4, levels=3), 3, (16, 16, 16))
    return save_model(
        tmp_path_factory.mktemp("run") / "model",
        network,
        card(patch_size=[16] * 3) | {"architecture": network.architecture},
    )


def test_a_model_folder_is_all_that_is_needed(tmp_path, folder):
    scan = write(tmp_path / "raw" / "a.nii.gz", head())
    results = medprism.load(folder.parent, "cpu").synthesize({"T1": scan}, uncertainty=True)
    assert list(results) == ["t2w", "t2f"]
    for result in results.values():
        path = result.save(tmp_path / "out" / f"{result.modality}.nii.gz")
        np.testing.assert_array_equal(nib.load(path).affine, nib.load(scan).affine)
        assert result.array.std() > 0
        assert result.uncertainty.max() > 0  # random weights are not equivariant


def test_absent_scans_are_never_read(folder):
    model = Model.load(folder, "cpu")
    images = np.random.default_rng(0).normal(size=(3, 20, 17, 16)).astype(np.float32)
    present = np.array([False, True, True])
    clean, vectors = model.predict(images, present), model.embed(images, present)
    images[0] = np.nan
    assert np.array_equal(model.predict(images, present), clean)
    assert np.array_equal(model.embed(images, present), vectors)
    assert vectors.shape[0] == 3
    assert np.isfinite(clean).all()


def copy(modalities, **scales):
    typical = dict.fromkeys(modalities, TYPICAL["t1n"]) | scales
    return Model(Mean(), card(modalities, typical, patch_size=[64, 64, 64]), device="cpu")


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="MEDPRISM_REAL_DATA is not set")
@pytest.mark.parametrize(
    ("path", "modality"),
    [
        ("brain/stroke/t2.nii.gz", "t2w"),
        ("sts/nifti/STS_001/CT_image.nii.gz", "ct"),
        ("sts/nifti/STS_001/PET_image.nii.gz", "pet"),
    ],
)
def test_a_real_scan_comes_back_on_its_own_grid(tmp_path, path, modality):
    scan = read_scan(REAL / path)
    modalities = ("t2w", "ct", "pet")
    recipe = Recipe.of(modalities)
    scale = assemble({modality: scan}, recipe).scales[modality]
    result = copy(modalities, **{modality: scale}).synthesize({modality: scan}, modality)[modality]
    low, high = result.sidecar["Range"]
    mask = recipe.normalisers[modality].foreground_mask(scan.array)
    np.testing.assert_allclose(result.array[mask], np.clip(scan.array, low, high)[mask], rtol=1e-4, atol=0.02)
    assert (result.array[~mask] == (-1000 if modality == "ct" else 0)).all()
    out, there = nib.load(result.save(tmp_path / "out.nii.gz")), nib.load(REAL / path)
    assert out.shape == there.shape
    np.testing.assert_array_equal(out.affine, there.affine)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="MEDPRISM_REAL_DATA is not set")
def test_real_scans_on_different_grids_give_an_output_on_any_of_them():
    folder = REAL / "sts" / "nifti" / "STS_001"
    given = {"t1n": folder / "MR_T1_image.nii.gz", "pet": folder / "PET_image.nii.gz"}
    model = copy(("t1n", "ct", "pet"))
    for name, path in given.items():
        result = model.synthesize(given, "ct", reference=name)["ct"]
        assert result.array.shape == read_scan(path).grid.shape
        assert result.sidecar["GridOf"] == name
