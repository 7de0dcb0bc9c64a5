"""A bundle runs by MONAI's own command, and gives what medprism's commands give, voxel for voxel."""

import json
import runpy
import sys

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow, verify_net_in_out

import medprism
from medprism.cli import main
from medprism.errors import UserError
from medprism.export.bundle import metadata
from medprism.export.bundle_run import patients
from tests.export.folders import model_folder, scans
from tests.export.networks import NAMES
from tests.inference.tiny import AFFINES, head, write

KINDS = {"segmentation": "channels-tagged", "transfer": "transfer", "classification": "classifier-mean"}
# Of MONAI's specification: what metadata.json must say, and what must be said of each tensor.
REQUIRED = [
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
    "schema",
]
OF_TENSORS = [
    "type",
    "format",
    "modality",
    "num_channels",
    "spatial_shape",
    "dtype",
    "value_range",
    "is_patch_data",
    "channel_def",
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    for task, name in KINDS.items():
        model_folder(root / task / "model", name)
        command = ["export", str(root / task), "--format", "bundle", "--out", str(root / task / "bundle")]
        assert main(command) == 0
    return {task: root / task for task in KINDS}


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scans(tmp_path / "scans")
    return tmp_path


def monai_run(monkeypatch, bundle, **options):
    pytest.importorskip("fire")
    words = [f"--{key}={value}" for key, value in options.items()]
    files = [f"--config_file={bundle}/configs/inference.json", f"--bundle_root={bundle}"]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *files, *words])
    runpy.run_module("monai.bundle", run_name="__main__")


def same(one, two):
    a, b = nib.load(one), nib.load(two)
    np.testing.assert_array_equal(np.asanyarray(a.dataobj), np.asanyarray(b.dataobj))
    np.testing.assert_array_equal(a.affine, b.affine)
    assert a.get_data_dtype() == b.get_data_dtype()
    return np.asanyarray(a.dataobj)


@pytest.mark.parametrize("task", KINDS)
def test_a_bundle_says_what_monai_asks_for(bundles, there, task):
    bundle = bundles[task] / "bundle"
    told = json.loads((bundle / "configs/metadata.json").read_text())
    assert [key for key in REQUIRED if key not in told] == []
    tensors = {**told["network_data_format"]["inputs"], **told["network_data_format"]["outputs"]}
    assert set(tensors) == {"image", "pred"}
    for tensor in tensors.values():
        assert [key for key in OF_TENSORS if key not in tensor] == []
        assert len(tensor["channel_def"]) == tensor["num_channels"]
    assert list(tensors["image"]["channel_def"].values()) == list(NAMES)
    workflow = ConfigWorkflow(
        f"{bundle}/configs/inference.json",
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir="scans",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert (bundle / "docs/README.md").read_text().startswith("# A model that ")


@pytest.mark.parametrize("task", ["segmentation", "transfer"])
def test_the_network_has_the_shape_that_the_metadata_tell(bundles, task):
    bundle = bundles[task] / "bundle"
    verify_net_in_out(
        net_id="network_def",
        meta_file=f"{bundle}/configs/metadata.json",
        config_file=f"{bundle}/configs/inference.json",
        device="cpu",
        bundle_root=str(bundle),
    )


def test_segmentation_is_that_of_the_command(bundles, there, monkeypatch):
    monai_run(monkeypatch, bundles["segmentation"] / "bundle", dataset_dir="scans", output_dir="out")
    for subject, names in (("anna", NAMES), ("ben", NAMES[:2])):
        images = [f"--image.{name}=scans/{subject}/{name}.nii.gz" for name in names]
        assert main(["segment", str(bundles["segmentation"]), *images, "--out", f"{subject}.nii.gz"]) == 0
        assert len(np.unique(same(f"out/{subject}/seg.nii.gz", f"{subject}.nii.gz"))) > 1
        sidecar = json.loads((there / f"out/{subject}/seg.json").read_text())
        assert sidecar["SourceModalities"] == list(names)


def test_synthesis_is_that_of_the_command(bundles, there, monkeypatch):
    monai_run(monkeypatch, bundles["transfer"] / "bundle", dataset_dir="scans", output_dir="out")
    assert not (there / "out/anna").exists()  # who lacks nothing
    images = [f"--image.{name}=scans/ben/{name}.nii.gz" for name in NAMES[:2]]
    assert main(["synthesize", str(bundles["transfer"]), *images, "--out", "made"]) == 0
    assert same("out/ben/t2f.nii.gz", "made/t2f.nii.gz").std() > 0
    monai_run(monkeypatch, bundles["transfer"] / "bundle", dataset_dir="scans", output_dir="again", target="t1n")
    assert sorted(path.name for path in there.glob("again/*/*.nii.gz")) == ["t1n.nii.gz"] * 2


def test_classes_are_those_of_the_command(bundles, there, monkeypatch):
    monai_run(monkeypatch, bundles["classification"] / "bundle", dataset_dir="scans/anna", output_dir="out")
    images = [f"--image.{name}=scans/anna/{name}.nii.gz" for name in NAMES]
    assert main(["classify", str(bundles["classification"]), *images, "--out", "result.json"]) == 0
    got, wanted = (
        json.loads((there / path).read_text())["Probabilities"] for path in ("out/anna/class.json", "result.json")
    )
    assert got == wanted


def test_what_is_done_is_kept_and_what_is_real_is_not_overwritten(bundles, there, monkeypatch):
    bundle = bundles["segmentation"] / "bundle"
    monai_run(monkeypatch, bundle, dataset_dir="scans", output_dir="out")
    before = (there / "out/ben/seg.nii.gz").stat().st_mtime_ns
    monai_run(monkeypatch, bundle, dataset_dir="scans", output_dir="out")
    assert (there / "out/ben/seg.nii.gz").stat().st_mtime_ns == before
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        monai_run(monkeypatch, bundle, dataset_dir="scans", output_dir="scans")
    assert isinstance(caught.value.__cause__, UserError)
    assert "without real scans" in str(caught.value.__cause__)
    assert not list((there / "scans").rglob("seg*"))


def test_files_of_any_name_can_be_given_in_python(bundles, there):
    bundle = bundles["segmentation"] / "bundle"
    file = write(there / "elsewhere/first scan.nii", head(), AFFINES["oblique"])
    workflow = ConfigWorkflow(
        f"{bundle}/configs/inference.json",
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        output_dir=str(there / "out"),
        **{"dataset#data": [{"t2f": str(file)}]},
    )
    workflow.initialize()
    workflow.run()
    result = medprism.load(bundle / "models", "cpu").segment({"t2f": file})
    result.save(there / "seg.nii.gz")
    same(there / "out/0000/seg.nii.gz", there / "seg.nii.gz")


def test_patients_are_those_of_any_layout(there):
    assert [patient["subject"] for patient in patients("scans")] == ["anna", "ben"]
    assert set(patients("scans/ben")[0]) == {"subject", "t1n", "t2w"}
    write(there / "scans/ben/T1.nii.gz", head())
    with pytest.raises(UserError, match="ben: two files for t1n"):
        patients("scans")


def test_metadata_name_the_cohort_and_whom_to_cite(tmp_path):
    model = medprism.load(model_folder(tmp_path / "model", "transfer", cohort="phantoms"), "cpu")
    told = metadata(model)
    assert told["data_source"] == "phantoms"
    assert told["references"] == ["Somebody 2025"]
