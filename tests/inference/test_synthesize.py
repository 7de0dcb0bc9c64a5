import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from medprism import cli, models
from medprism.data.cohort import Cohort, Subject
from medprism.data.modalities import MODALITIES as ALL
from medprism.errors import UserError
from medprism.inference import jobs as jobs_module
from medprism.inference import model as model_module
from medprism.inference.synthesize import synthesize
from medprism.inference.tables import expected
from tests.inference.tiny import AFFINES, MODALITIES, Mean, head, model_folder, write


@pytest.fixture(autouse=True)
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", lambda architecture: Mean())


@pytest.fixture
def model(tmp_path):
    return model_folder(tmp_path / "run" / "model").parent


@pytest.fixture
def scan(tmp_path):
    return write(tmp_path / "raw" / "a.nii.gz", head(), AFFINES["oblique"])


def told(path):
    return json.loads(path.with_name(path.name.removesuffix(".nii.gz") + ".json").read_text())


def test_one_subject_by_files(tmp_path, model, scan, capsys):
    other = write(tmp_path / "raw" / "b.nii.gz", head(seed=1), AFFINES["oblique"])
    made = synthesize(model, image={"T2": other, "t1": scan}, out=tmp_path / "out", uncertainty=True, device="cpu")
    assert made == [tmp_path / "out" / "t2f.nii.gz"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "t2f.json",
        "t2f.nii.gz",
        "t2f_uncertainty.json",
        "t2f_uncertainty.nii.gz",
    ]
    np.testing.assert_array_equal(nib.load(made[0]).affine, nib.load(scan).affine)
    sidecar = told(made[0])
    assert sidecar["Synthetic"] is True
    assert sidecar["Sources"] == ["a.nii.gz", "b.nii.gz"]
    assert sidecar["SourceModalities"] == ["t1n", "t2w"]
    assert len(sidecar["ModelSHA256"]) == 64
    assert sidecar["Seconds"] >= 0
    out = capsys.readouterr().out
    assert "given: a.nii.gz" in out
    assert "not measured" in out


def test_an_output_is_never_overwritten_without_force(tmp_path, model, scan, monkeypatch):
    out = tmp_path / "out"
    (made,) = synthesize(model, image={"t1n": scan}, target="t2f", out=out)
    before = made.read_bytes()
    monkeypatch.setattr(model_module.Model, "synthesize", None)  # refused before any work
    with pytest.raises(UserError, match="--force"):
        synthesize(model, image={"t1n": scan}, target="t2f", out=out, intensity="unit")
    monkeypatch.undo()
    monkeypatch.setattr(models, "build", lambda architecture: Mean())
    assert made.read_bytes() == before
    synthesize(model, image={"t1n": scan}, target="t2f", out=out, intensity="unit", force=True)
    assert told(made)["Intensity"] == "unit"
    assert nib.load(made).get_fdata().max() <= 1


@pytest.mark.parametrize("force", [False, True])
def test_never_beside_real_scans(tmp_path, model, scan, force):
    before = sorted(scan.parent.iterdir())
    with pytest.raises(UserError, match="real scans"):
        synthesize(model, image={"t1n": scan}, out=scan.parent, force=force)
    link = tmp_path / "link"
    link.symlink_to(scan.parent, target_is_directory=True)
    with pytest.raises(UserError, match="real scans"):
        synthesize(model, image={"t1n": scan}, out=link, force=force)
    assert sorted(scan.parent.iterdir()) == before
    synthesize(model, image={"t1n": scan}, out=scan.parent / "synthetic")  # below is another folder


def test_bad_requests(tmp_path, model, scan):
    cut = tmp_path / "raw" / "cut.nii.gz"
    cut.write_bytes(scan.read_bytes()[:2000])
    nan = head()
    nan[3, 3, 3] = np.nan
    holey = write(tmp_path / "raw" / "nan.nii.gz", nan)
    away = write(tmp_path / "raw" / "away.nii.gz", head(), AFFINES["ras"] + _shift(700))
    out = tmp_path / "out"
    for images, target, message in (
        ({}, "all", "give one of them"),
        ({"t1x": scan}, "all", "expected a modality"),
        ({"ct": scan}, "all", "which the model knows"),
        ({"t1n": scan}, "ct", "expected a target among"),
        ({"t1n": scan}, "t9", "expected a modality"),
        ({"t1n": cut}, "all", "truncated"),
        ({"t1n": holey}, "all", "NaN"),
        ({"t1n": scan, "t2w": away}, "all", "one world space"),
        ({"t1n": tmp_path / "raw" / "none.nii.gz"}, "all", "no such file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            synthesize(model, image=images, target=target, out=out)
        assert "\n" not in str(caught.value)
    assert not out.exists()
    (model / "model" / "model.json").unlink()
    with pytest.raises(UserError, match=r"model\.json is missing"):
        synthesize(model, image={"t1n": scan}, out=out)
    with pytest.raises(UserError, match="expected a device"):
        synthesize(model_folder(tmp_path / "m"), image={"t1n": scan}, out=out, device="gpu7")


def _shift(x):
    return np.array([[0, 0, 0, x], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.0]])


def test_an_altered_model_is_refused(tmp_path, model, scan):
    weights = model / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="altered"):
        synthesize(model, image={"t1n": scan}, out=tmp_path / "out")


def test_a_volume_of_a_4d_file_can_be_named(tmp_path, model):
    stack = np.stack([head(), head(seed=1)], axis=-1)
    path = write(tmp_path / "raw" / "four.nii.gz", stack)
    (made,) = synthesize(model, image={"t1n": f"{path}#1"}, target="t2f", out=tmp_path / "out")
    assert nib.load(made).shape == stack.shape[:3]
    with pytest.raises(UserError, match="real scans"):
        synthesize(model, image={"t1n": f"{path}#1"}, target="t2f", out=path.parent)


# cohorts


def cohort(root, layout="flat", holes=((), ("t2f",), ("t1n", "t2w")), names=None):
    subjects = []
    for number, absent in enumerate(holes):
        name = f"sub-{number}"
        images = {}
        for seed, modality in enumerate(MODALITIES):
            if modality not in absent:
                relative = (names or "{s}/{m}.nii.gz").format(s=name, m=modality)
                write(root / relative, head(seed=10 * number + seed))
                images[modality] = relative
        subjects.append(Subject(name, name, images))
    made = Cohort("c", MODALITIES, {}, {}, root, training=tuple(subjects), origin={"layout": layout})
    return made.save(root / "cohort.json")


@pytest.fixture
def data(tmp_path):
    return cohort(tmp_path / "raw")


def test_a_cohort_is_filled(tmp_path, model, data, capsys):
    out = tmp_path / "out"
    made = synthesize(model, data=data, out=out)
    assert [p.relative_to(out).as_posix() for p in made] == ["sub-1/t2f.nii.gz", "sub-2/t1n.nii.gz", "sub-2/t2w.nii.gz"]
    assert all(p.exists() for p in made)
    assert told(made[1])["Sources"] == ["sub-2/t2f.nii.gz"]
    assert not (out / "dataset_description.json").exists()
    assert "all that is asked for" in capsys.readouterr().out


def count_calls(monkeypatch):
    calls, real = [], model_module.Model.synthesize

    def counted(self, images, target="all", **options):
        calls.append(tuple(target))
        return real(self, images, target, **options)

    monkeypatch.setattr(model_module.Model, "synthesize", counted)
    return calls


def test_a_second_run_does_only_what_is_left(tmp_path, model, data, monkeypatch):
    out = tmp_path / "out"
    first = synthesize(model, data=data, out=out)
    before = [p.read_bytes() for p in first]
    calls = count_calls(monkeypatch)
    assert synthesize(model, data=data, out=out) == first
    assert calls == []
    first[2].unlink()  # as if stopped between sidecar and scan
    synthesize(model, data=data, out=out)
    assert calls == [("t2w",)]
    assert [p.read_bytes() for p in first] == before
    synthesize(model, data=data, out=out, force=True)
    assert calls[1:] == [("t2f",), ("t1n", "t2w")]


def test_outputs_of_another_model_stand_in_the_way(tmp_path, model, data):
    made = synthesize(model, data=data, target="t2f", out=tmp_path / "out")
    other = Mean()
    other.gain.data += 0.5
    second = model_folder(tmp_path / "second", other)
    with pytest.raises(UserError, match="--force"):
        synthesize(second, data=data, target="t2f", out=tmp_path / "out")
    synthesize(second, data=data, target="t2f", out=tmp_path / "out", force=True)
    assert told(made[0])["ModelSHA256"] == json.loads((second / "model.json").read_text())["sha256"]


def test_a_strangers_file_is_not_taken_for_a_stopped_run(tmp_path, model, data):
    for name, text in (("t2f.nii.gz", "mine"), ("t2f.json", "{}")):
        mine = tmp_path / name / "sub-1" / name
        mine.parent.mkdir(parents=True)
        mine.write_text(text)
        with pytest.raises(UserError, match="--force"):
            synthesize(model, data=data, out=tmp_path / name)
        assert mine.read_text() == text
        assert not (tmp_path / name / "sub-2").exists()


def test_never_into_the_cohorts_own_folders(tmp_path, model, data):
    before = sorted((tmp_path / "raw").rglob("*"))
    for force in (False, True):
        with pytest.raises(UserError, match="real scans"):
            synthesize(model, data=data, out=tmp_path / "raw", force=force)
    assert sorted((tmp_path / "raw").rglob("*")) == before


def test_one_bad_subject_does_not_stop_the_others(tmp_path, model, data):
    bad = tmp_path / "raw" / "sub-1" / "t1n.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(UserError, match=r"1 without.*sub-1"):
        synthesize(model, data=data, out=tmp_path / "out")
    assert not (tmp_path / "out" / "sub-1").exists()
    assert len(list((tmp_path / "out" / "sub-2").glob("*.nii.gz"))) == 2
    bad.write_bytes(good)
    assert len(synthesize(model, data=data, out=tmp_path / "out")) == 3


def test_a_bids_cohort_gives_bids_derivatives(tmp_path, model):
    data = cohort(tmp_path / "raw", "bids", ((), ("t2f", "t2w")), "{s}/ses-7/anat/{s}_ses-7_acq-x_{m}.nii.gz")
    made = synthesize(model, data=data, out=tmp_path / "out", uncertainty=True)
    stem = "sub-1/ses-7/anat/sub-1_ses-7_desc"
    assert [p.relative_to(tmp_path / "out").as_posix() for p in made] == [
        f"{stem}-synthetic_T2w.nii.gz",
        f"{stem}-synthetic_FLAIR.nii.gz",
    ]
    assert (tmp_path / "out" / f"{stem}-uncertainty_FLAIR.nii.gz").exists()
    assert told(made[0])["Sources"] == ["bids:raw:sub-1/ses-7/anat/sub-1_ses-7_acq-x_t1n.nii.gz"]
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"] == {"raw": "../raw"}
    assert set(jobs_module._BIDS) == set(ALL)


def test_a_cohort_of_other_modalities(tmp_path, scan):
    model = model_folder(tmp_path / "m")
    data = Cohort("c", ("ct",), {}, {}, scan.parent, (Subject("s", "s", {"ct": scan.name}),)).save(tmp_path / "c.json")
    with pytest.raises(UserError, match="got none in c"):
        synthesize(model, data=data, out=tmp_path / "out")


# what to expect


def row(given, **values):
    base = {"method": "model", "protocol": "strict", "target": "t2f", "region": "foreground", "metric": "psnr"}
    return {**base, "given": given, "mean": 25.04, "ci95": [24, 26.06], **values}


def test_the_expected_quality_is_of_just_this_subset():
    rows = [
        row(["t1n"], method="lookup", mean=1),
        row(["t1n"], protocol="paper", mean=2),
        row(["t1n"], region="volume", mean=3),
        row(["t1n", "t2w"], mean=4),
        row(["t1n"]),
        row(["t1n"], metric="ssim", mean=0.8123, ci95=None),
    ]
    for metrics in (rows, {"rows": rows}):
        assert expected({"metrics": metrics}, ["t1n"], "t2f") == "PSNR 25 dB (24 to 26.1), SSIM 0.812"
        assert expected({"metrics": metrics}, ["t2w", "t1n"], "t2f") == "PSNR 4 dB (24 to 26.1)"
    assert expected({"metrics": rows}, ["t1n"], "t2w") == "not measured"
    assert expected({}, ["t1n"], "t2f") == "not measured"


def test_from_the_command_line(tmp_path, model, scan, capsys):
    words = ["synthesize", str(model), "--image.t1n", str(scan), "--target", "t2f", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert (tmp_path / "out" / "t2f.nii.gz").exists()
    capsys.readouterr()
    assert cli.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: expected no file")
