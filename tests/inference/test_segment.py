import json

import nibabel as nib
import numpy as np
import pytest

from medprism import cli, models
from medprism.errors import UserError
from medprism.inference.segment import segment
from medprism.inference.segmentation import SegmentationModel
from medprism.models.folder import save_model
from tests.inference.test_synthesize import cohort
from tests.inference.tiny import AFFINES, Bright, Mean, build, card, head, segmentation_card, write


@pytest.fixture(autouse=True)
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", build)


ROWS = [
    {"method": "model+small", "given": ["t1n"], "region": "all", "metric": "dice", "mean": 0.1, "n": 9},
    {"method": "model", "given": ["t1n", "t2w"], "region": "all", "metric": "dice", "mean": 0.2, "n": 9},
    {"method": "model", "given": ["t1n"], "region": "all", "metric": "hd95", "mean": 30.0, "n": 9},
    {"method": "model", "given": ["t1n"], "region": "all", "metric": "dice", "mean": 0.812, "ci95": [0.7, 0.9], "n": 9},
    {"method": "model", "given": ["t1n"], "region": "bright", "metric": "dice", "mean": None, "n": 0},
]


@pytest.fixture
def model(tmp_path):
    metrics = {"split": "validation", "rows": ROWS}
    return save_model(tmp_path / "run" / "model", Bright(), segmentation_card(metrics=metrics)).parent


@pytest.fixture
def scan(tmp_path):
    return write(tmp_path / "raw" / "a.nii.gz", head(), AFFINES["oblique"])


def told(path):
    return json.loads(path.with_name(path.name.removesuffix(".nii.gz") + ".json").read_text())


def test_one_subject_by_files(tmp_path, model, scan, capsys):
    out = tmp_path / "out" / "seg.nii.gz"
    assert segment(model, image={"T1": scan}, out=out, device="cpu") == [out]
    assert sorted(p.name for p in out.parent.iterdir()) == ["seg.json", "seg.nii.gz"]
    np.testing.assert_array_equal(nib.load(out).affine, nib.load(scan).affine)
    assert told(out)["Sources"] == ["a.nii.gz"]
    assert told(out)["ExpectedDice"] == {"all": {"mean": 0.812, "ci95": [0.7, 0.9], "n": 9, "split": "validation"}}
    shown = capsys.readouterr().out
    for words in ("given: a.nii.gz", "absent", "0.812 (0.7 to 0.9)", "validation", "Found: all"):
        assert words in shown
    assert shown.count("absent") == 2
    assert "bright" not in shown.split("Found")[0]


def test_one_file_is_not_two_scans(tmp_path, model, scan):
    with pytest.raises(UserError, match=r"a file for each scan, got .* for both t1n and t2w"):
        segment(model, out=tmp_path / "out.nii.gz", image={"t1n": scan, "t2w": scan.parent / "." / scan.name})
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_training_that_has_not_ended_is_told(tmp_path, model, scan, caplog):
    for name, said in (("config.yaml", True), ("done", False)):
        (model / name).write_text("")
        caplog.clear()
        segment(model, out=tmp_path / f"{name}.nii.gz", image={"t1n": scan})
        assert ("has not ended" in caplog.text) == said


def test_a_subset_that_was_not_evaluated_is_told(tmp_path, model, scan, capsys):
    segment(model, image={"t2f": scan}, out=tmp_path / "seg.nii.gz")
    assert "Dice to expect from t2f: not evaluated" in capsys.readouterr().out


def test_beside_the_scans_but_never_in_their_place(tmp_path, model, scan):
    before = scan.read_bytes()
    with pytest.raises(UserError, match="one of them"):
        segment(model, image={"t1n": scan}, out=scan, force=True)
    raw = scan.rename(scan.with_name("b_raw.nii.gz"))  # the name that the raw map would get
    with pytest.raises(UserError, match="one of them"):
        segment(model, image={"t1n": raw}, out=scan.with_name("b.nii.gz"), small={"bright": 1}, force=True)
    assert raw.rename(scan).read_bytes() == before
    segment(model, image={"t1n": scan}, out=scan.parent / "seg.nii.gz")


def test_an_output_is_never_overwritten_without_force(tmp_path, model, scan, monkeypatch):
    out = tmp_path / "seg.nii.gz"
    segment(model, image={"t1n": scan}, out=out)
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModel, "segment", None)  # refused before any work
        with pytest.raises(UserError, match="--force"):
            segment(model, image={"t1n": scan}, out=out)
    segment(model, image={"t1n": scan}, out=out, force=True)
    assert out.read_bytes() == before
    for name in ("other.json", "other_raw.nii.gz"):
        (tmp_path / name).write_text("{}")
        with monkeypatch.context() as patch:
            patch.setattr(SegmentationModel, "segment", None)
            with pytest.raises(UserError, match="--force"):
                segment(model, image={"t1n": scan}, out=tmp_path / "other.nii.gz", small={"bright": 1})
        (tmp_path / name).unlink()


def test_bad_requests(tmp_path, model, scan):
    cut = tmp_path / "raw" / "cut.nii.gz"
    cut.write_bytes(scan.read_bytes()[:2000])
    shift = np.zeros((4, 4))
    shift[0, 3] = 700
    away = write(tmp_path / "raw" / "away.nii.gz", head(), AFFINES["oblique"] + shift)
    out = tmp_path / "out" / "seg.nii.gz"
    for images, options, message in (
        ({}, {}, "give one of them"),
        ({"t1x": scan}, {}, "expected a modality"),
        ({"ct": scan}, {}, "which the model knows"),
        ({"t1n": cut}, {}, "truncated"),
        ({"t1n": scan, "t2w": away}, {}, "one world space"),
        ({"t1n": tmp_path / "raw" / "none.nii.gz"}, {}, "no such file"),
        ({"t1n": scan}, {"out": tmp_path / "out" / "seg.png"}, r"ending in \.nii or \.nii\.gz"),
        ({"t1n": scan}, {"out": tmp_path}, r"ending in \.nii or \.nii\.gz"),
        ({"t1n": scan}, {"small": {"ET": 500}}, "region out of all, bright"),
        ({"t1n": scan}, {"reference": "t2w"}, "reference among the given"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            segment(model, image=images, **{"out": out, **options})
        assert "\n" not in str(caught.value)
    assert not out.parent.exists()
    generator = save_model(tmp_path / "generator", Mean(), card())
    with pytest.raises(UserError, match="use medprism synthesize"):
        segment(generator, image={"t1n": scan}, out=out)


# cohorts


@pytest.fixture
def data(tmp_path):
    return cohort(tmp_path / "raw")


def test_a_cohort_of_any_subsets(tmp_path, model, data, capsys):
    out = tmp_path / "out"
    made = segment(model, data=data, out=out, reference="T2")
    assert [p.relative_to(out).as_posix() for p in made] == [f"sub-{n}/seg.nii.gz" for n in range(3)]
    assert [told(p)["GridOf"] for p in made] == ["t2w", "t2w", "t2f"]  # the last has no other
    assert told(made[1])["SourceModalities"] == ["t1n", "t2w"]
    assert told(made[1])["Sources"] == ["sub-1/t1n.nii.gz", "sub-1/t2w.nii.gz"]
    shown = capsys.readouterr().out
    assert "all 0.2" in shown
    assert "not evaluated" in shown


def test_a_second_run_does_only_what_is_left(tmp_path, model, data, monkeypatch):
    out, calls, real = tmp_path / "out", [], SegmentationModel.segment

    def counted(self, images, **options):
        calls.append(tuple(images))
        return real(self, images, **options)

    first = segment(model, data=data, out=out)
    before = [p.read_bytes() for p in first]
    monkeypatch.setattr(SegmentationModel, "segment", counted)
    assert segment(model, data=data, out=out) == first
    assert calls == []
    first[2].unlink()  # as if stopped between sidecar and map
    segment(model, data=data, out=out)
    assert calls == [("t2f",)]
    assert [p.read_bytes() for p in first] == before
    for options in ({"small": {"bright": 5}}, {"probabilities": True}, {"reference": "t2f"}):
        with pytest.raises(UserError, match="--force"):  # another wish is not fulfilled by what is there
            segment(model, data=data, out=out, **options)
    segment(model, data=data, out=out, probabilities=True, force=True)
    assert len(calls) == 4
    assert segment(model, data=data, out=out, probabilities=True) == first
    assert len(calls) == 4
    (out / "sub-0" / "seg_dark_probability.nii.gz").unlink()
    with pytest.raises(UserError, match="--force"):
        segment(model, data=data, out=out, probabilities=True)


def test_a_cohorts_maps_go_elsewhere(tmp_path, model, data):
    with pytest.raises(UserError, match="real scans"):
        segment(model, data=data, out=data.parent, force=True)
    with pytest.raises(UserError, match="reference among t1n, t2w, t2f, got pet"):
        segment(model, data=data, out=tmp_path / "out", reference="pet")
    with pytest.raises(UserError, match="a folder for the label maps"):
        segment(model, data=data, out=tmp_path / "seg.nii.gz")


def test_one_bad_subject_does_not_stop_the_others(tmp_path, model, data):
    bad = tmp_path / "raw" / "sub-1" / "t1n.nii.gz"
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(UserError, match=r"1 without.*sub-1"):
        segment(model, data=data, out=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["sub-0", "sub-2"]


def test_a_bids_cohort_gives_bids_derivatives(tmp_path, model):
    data = cohort(tmp_path / "raw", "bids", ((),), "{s}/ses-7/anat/{s}_ses-7_acq-x_{m}.nii.gz")
    out = tmp_path / "out"
    made = segment(model, data=data, out=out, probabilities=True, small={"bright": 1})
    stem = "sub-0/ses-7/anat/sub-0_ses-7"
    assert [p.relative_to(out).as_posix() for p in made] == [f"{stem}_desc-model_dseg.nii.gz"]
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.nii.gz")) == [
        f"{stem}_desc-model_dseg.nii.gz",
        f"{stem}_desc-raw_dseg.nii.gz",
        f"{stem}_label-bright_desc-model_probseg.nii.gz",
        f"{stem}_label-dark_desc-model_probseg.nii.gz",
    ]
    assert json.loads((out / "dataset_description.json").read_text())["Name"] == "Segmentations for c"


def test_from_the_command_line(tmp_path, model, scan, capsys):
    out = tmp_path / "seg.nii.gz"
    words = ["segment", str(model), "--image.t1n", str(scan), "--out", str(out), "--small.bright", "1e9"]
    assert cli.main(words) == 0
    assert told(out)["VolumesMl"]["bright"] == 0
    assert (tmp_path / "seg_raw.nii.gz").exists()
    capsys.readouterr()
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith("error: expected no file")
    assert shown.out == ""  # nothing is told of what is not begun
    assert cli.main([*words[:3], str(tmp_path / "lost.nii.gz"), "--out", str(tmp_path / "other.nii.gz")]) == 2
    shown = capsys.readouterr()
    assert "no such file" in shown.err
    assert shown.out == ""
