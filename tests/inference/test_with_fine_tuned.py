"""The package's own networks for segmentation and classification through a model folder, and a real patient."""

import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import medprism
from medprism.data.intensity import Scale
from medprism.io import read_scan
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.folder import save_model
from medprism.models.prism import NetworkConfig
from medprism.models.segmenter import Segmenter, SegmenterConfig
from tests.inference.tiny import CLASSIFICATION, MODALITIES, SEGMENTATION, card, head, write
from tests.leaks import assert_absent_is_unread

REAL = Path(os.environ.get("MEDPRISM_REAL_DATA", "nowhere"))
SCANS = {"t1n": "MR_T1_image.nii.gz", "ct": "CT_image.nii.gz", "pet": "PET_image.nii.gz"}


def folder(path, modalities, patch, width=4, *, levels=3, spacing=None, **config):
    torch.manual_seed(0)
    shape = NetworkConfig(width=width, levels=levels, source="tagged")
    network = Segmenter(shape, SegmenterConfig(**config), len(modalities), 3, (patch,) * 3)
    told = {**SEGMENTATION, "architecture": network.architecture, "patch_size": [patch] * 3, "spacing": spacing}
    typical = dict.fromkeys(modalities, Scale(0, 500, -2, 2))
    return save_model(path, network, card(modalities, typical, **told))


@pytest.mark.parametrize(
    "config", [{"fusion": "mean"}, {"fusion": "gates"}, {"combine": "channels"}], ids=["mean", "gates", "channels"]
)
def test_a_model_folder_is_all_that_is_needed(tmp_path, config):
    model = medprism.load(folder(tmp_path / "model", MODALITIES, 16, **config), "cpu")
    scan = write(tmp_path / "raw" / "a.nii.gz", head())
    result = model.segment({"T1": scan}, probabilities=True)
    path = result.save(tmp_path / "out" / "seg.nii.gz")
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(scan).affine)
    assert result.probabilities["dark"].std() > 0
    images = np.random.default_rng(0).normal(size=(3, 20, 17, 16)).astype(np.float32)
    assert_absent_is_unread(
        lambda images, present: (model.predict(images, present), model.embed(images, present)), images
    )


@pytest.mark.parametrize("fusion", ["mean", "gates"])
def test_a_classifiers_folder_is_all_that_is_needed(tmp_path, fusion):
    torch.manual_seed(0)
    network = Classifier(NetworkConfig(width=4, levels=3), ClassifierConfig(fusion), 3, 3, (16,) * 3)
    told = {**CLASSIFICATION, "architecture": network.architecture, "patch_size": [16] * 3}
    model = medprism.load(save_model(tmp_path / "model", network, card(MODALITIES, **told)), "cpu")
    result = model.classify({"T1": write(tmp_path / "raw" / "a.nii.gz", head())})
    assert sum(result.probabilities.values()) == pytest.approx(1)
    images = np.random.default_rng(0).normal(size=(3, 20, 17, 16)).astype(np.float32)
    assert_absent_is_unread(
        lambda images, present: (model.predict(images, present), model.embed(images, present)), images
    )


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="MEDPRISM_REAL_DATA is not set")
def test_a_real_patient_within_a_minute_from_any_scans(tmp_path):
    path = folder(tmp_path / "model", tuple(SCANS), 48, 16, levels=4, spacing=[4.0, 4.0, 4.0])
    model, raw = medprism.load(path, "cpu"), REAL / "sts" / "nifti" / "STS_001"
    for names in (["pet"], ["ct", "t1n", "pet"]):
        started = (
            time.process_time()
        )  # of all threads, thus no less than the wall's on a machine with nothing else to do
        given = {name: raw / SCANS[name] for name in names}
        result = model.segment(given, reference=names[0])
        out = nib.load(result.save(tmp_path / f"{names[0]}.nii.gz"))
        assert time.process_time() - started < 60
        assert out.shape == read_scan(given[names[0]]).grid.shape
        assert result.sidecar["SourceModalities"] == [name for name in SCANS if name in names]
