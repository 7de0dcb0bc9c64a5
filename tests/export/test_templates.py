"""A model whose absent scans are filled by templates takes them along."""

import json

import numpy as np
import pytest

from medprism.cli import main
from medprism.export import onnx_folder
from medprism.export.bundle_run import Evaluator, PatientInferer, patients
from medprism.export.onnx_file import Agreement
from medprism.inference.load import load
from medprism.io.grid import Grid
from medprism.io.nifti import read_scan
from medprism.models.templates import Templates
from tests.export.folders import model_folder, scans
from tests.export.networks import NAMES


@pytest.fixture
def filled(tmp_path):
    """A run folder whose model has templates beside it, which hold something to see."""
    place = np.eye(4)
    place[:3, 3] = -4
    templates = Templates(NAMES, Grid((30, 34, 28), place))
    templates.volumes.data.mul_(100)
    model_folder(tmp_path / "run/model", "channels", fill="templates", templates=templates.identity)
    templates.save(tmp_path / "run/model/templates")
    return tmp_path / "run"


def test_a_bundle_fills_as_the_command_does(filled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "run", "--format", "bundle", "--out", "bundle"]) == 0
    scans(tmp_path / "scans")
    Evaluator(patients("scans"), PatientInferer(load("bundle/models", "cpu")), "out").run()
    images = [f"--image.{name}=scans/ben/{name}.nii.gz" for name in NAMES[:2]]
    assert main(["segment", "run", *images, "--out", "seg.nii.gz"]) == 0
    np.testing.assert_array_equal(read_scan("out/ben/seg.nii.gz").array, read_scan("seg.nii.gz").array)
    assert json.loads((tmp_path / "out/ben/seg.json").read_text())["FilledByTemplates"] == ["t2f"]


def test_a_graph_comes_with_them_and_its_page_says_so(filled, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_folder, "write", lambda graph, examples, output, path: path.write_bytes(b"graph"))
    monkeypatch.setattr(onnx_folder, "compared", lambda path, traced: Agreement(0.0, 0.0, len(traced.subsets)))
    (tmp_path / "graph").mkdir()
    onnx_folder.fill(load(filled, "cpu"), tmp_path / "graph")
    for name in NAMES:
        wanted = (filled / f"model/templates/{name}.nii.gz").read_bytes()
        assert (tmp_path / f"graph/templates/{name}.nii.gz").read_bytes() == wanted
    page = (tmp_path / "graph/README.md").read_text()
    assert "`present` is true for all" in page
    assert "| `templates/` |" in page
