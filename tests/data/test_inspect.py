import json
import os
from pathlib import Path

import numpy as np
import pytest

from medprism.data import splits
from medprism.data.cohort import Cohort
from medprism.data.inspect import inspect
from medprism.errors import UserError
from tests.data.fake_scans import label, scan


@pytest.fixture
def flat(tmp_path):
    """Ten subjects of which some lack scans, and a label for each."""
    root = tmp_path / "my set"
    for i in range(10):
        for modality in ("t1", "t2", "flair")[: 3 - i % 2]:
            scan(root / f"p{i}/{modality}.nii.gz")
        label(root / f"p{i}/seg.nii.gz", *([1, 2] if i else []))
    return root


def sides(cohort):
    return [[s.subject for s in cohort.subjects(split)] for split in ("training", "validation", "test")]


def test_folder_to_cohort_file(flat, tmp_path, capsys):
    out = tmp_path / "lists/cohort.json"
    cohort = inspect(flat, out=out, splits="random", seed=2)
    assert Cohort.load(out) == cohort.moved(out.parent)
    assert cohort.name == "my set"
    assert cohort.modalities == ("t1n", "t2w", "t2f")
    assert cohort.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert [len(side) for side in sides(cohort)] == [7, 1, 2]
    assert cohort.origin == {"layout": "flat", "splits": "random", "fractions": [0.7, 0.1, 0.2], "seed": 2}
    shown = " ".join(capsys.readouterr().out.split())
    assert "my set: 10 subjects of 10 persons, layout flat" in shown
    assert "p3 ● ● · ●" in shown
    assert "5 × t1n t2w t2f" in shown
    assert "called label_1, label_2" in shown
    assert "1 of 10 labels are empty" in shown
    assert "No problem found" in shown


def test_nothing_is_written_without_out(flat, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    cohort = inspect(flat)
    assert sorted(tmp_path.rglob("*")) == before
    assert sides(cohort) == [[f"p{i}" for i in range(10)], [], []]
    assert "Nothing is written" in capsys.readouterr().out


def test_existing_file_stops_before_the_work(flat, tmp_path, capsys):
    out = tmp_path / "cohort.json"
    out.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        inspect(flat, out=out)
    assert out.read_text() == "mine"
    assert capsys.readouterr().out == ""
    inspect(flat, out=out, force=True)
    assert Cohort.load(out).name == "my set"


def test_quick_gives_the_same_cohort(flat, capsys):
    full = inspect(flat)
    assert "Intensity" in capsys.readouterr().out
    assert inspect(flat, quick=True) == full
    assert "Intensity" not in capsys.readouterr().out


def test_bad_subjects_stop_it_or_are_left_out(flat, tmp_path, capsys):
    scan(flat / "p1/t1.nii.gz", np.zeros((6, 7, 8), np.float32))
    scan(flat / "p2/t2.nii.gz", origin=(900, 0, 0))
    scan(flat / "p5/T1w.nii.gz")
    label(flat / "p11/seg.nii.gz", 1)
    out = tmp_path / "cohort.json"
    with pytest.raises(UserError, match=r"4 of 11 subjects cannot be used \(p1, p11, p2, … \(4 in all\)\).*--skip-bad"):
        inspect(flat, out=out)
    assert not out.exists()
    shown = " ".join(capsys.readouterr().out.split())
    assert "Unusable: 4 of 11 subjects" in shown
    for part in ("got 0 in every voxel", "900 mm apart", "two files for t1n", "has no scan"):
        assert part in shown
    cohort = inspect(flat, out=out, skip_bad=True)
    assert {s.subject for s in cohort.subjects()} == {f"p{i}" for i in (0, 3, 4, 6, 7, 8, 9)}


def test_all_bad(tmp_path):
    scan(tmp_path / "a/t1.nii.gz", np.zeros((6, 7, 8), np.float32))
    with pytest.raises(UserError, match="none of 1 subjects can be used"):
        inspect(tmp_path, skip_bad=True)


def test_modalities_are_chosen_and_ordered(flat, capsys):
    cohort = inspect(flat, modalities=["FLAIR", "t1"])
    assert cohort.modalities == ("t2f", "t1n")
    assert all(list(s.images) in (["t2f", "t1n"], ["t1n"]) for s in cohort.subjects())
    cohort = inspect(flat, modalities=["FLAIR"])
    assert len(cohort.subjects()) == 5
    assert "left out, as they have none of t2f: p1, p3, p5, … (5 in all)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["flare"], "did you mean t2f"),
        (["ct"], "no subject has a scan of ct; there are t1n t2w t2f"),
        (["t1", "t1n"], "different modalities"),
    ],
)
def test_wrong_modalities(flat, names, message):
    with pytest.raises(UserError, match=message):
        inspect(flat, modalities=names)


def test_holes_are_in_training_only(flat, tmp_path, capsys):
    complete = inspect(flat, splits="kfold", fold=1)
    thinned = inspect(flat, splits="kfold", fold=1, missing_rate=0.5, seed=0, out=tmp_path / "c.json")
    assert thinned.test == complete.test
    assert thinned.validation == complete.validation
    assert thinned.split_hash == complete.split_hash
    removed = sum(len(s.images) for s in complete.training) - sum(len(s.images) for s in thinned.training)
    assert removed > 0
    assert f"{removed} of " in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["origin"] == {
        "layout": "flat", "splits": "kfold", "folds": 5, "fold": 1, "missing_rate": 0.5, "seed": 0,
    }  # fmt: skip


def test_cohort_file_is_checked_divided_and_moved(flat, tmp_path):
    first = tmp_path / "a/cohort.json"
    inspect(flat, out=first, splits="random")
    content = json.loads(first.read_text())
    content["labels"] = {"background": 0, "core": 1, "rim": 2}
    content["name"] = "mine"
    first.write_text(json.dumps(content))
    same = inspect(first)
    assert same == Cohort.load(first)
    second = tmp_path / "b/deep/cohort.json"
    divided = inspect(first, out=second, splits="kfold", folds=2)
    assert divided.labels == {"background": 0, "core": 1, "rim": 2}
    assert len(divided.test) == 5
    loaded = Cohort.load(second)
    assert all(loaded.path(path).is_file() for s in loaded.subjects() for path in s.paths())


def test_cohort_file_with_a_missing_scan(flat, tmp_path, capsys):
    path = tmp_path / "cohort.json"
    inspect(flat, out=path)
    (flat / "p4/t2.nii.gz").unlink()
    with pytest.raises(UserError, match=r"1 of 10 subjects cannot be used \(p4\)"):
        inspect(path)
    assert "got no such file" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match="no layout"):
        inspect(path, layout="flat")


def test_persons_named_in_the_cohort_file_stay_together(flat, tmp_path):
    path = tmp_path / "cohort.json"
    inspect(flat, out=path)
    content = json.loads(path.read_text())
    for i, item in enumerate(content["training"]):
        item["person"] = f"person{i // 2}"
    path.write_text(json.dumps(content))
    cohort = inspect(path, splits="kfold", folds=5, fold=3)
    assert len({s.person for s in cohort.test}) == 1
    assert len(cohort.test) == 2


def test_nnunet_split_keeps_the_layouts_test(tmp_path, capsys):
    root = tmp_path / "Dataset001_X"
    for case in "abcd":
        scan(root / f"imagesTr/{case}_0000.nii.gz")
    scan(root / "imagesTs/z_0000.nii.gz")
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": {"background": 0}}))
    (root / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    assert sides(inspect(root)) == [["a", "b", "c", "d"], [], ["z"]]
    cohort = inspect(root, splits=str(root / "splits_final.json"))
    assert sides(cohort) == [["a", "b"], ["c"], ["z"]]
    assert "1 subject left out, as the split does not name them: d" in capsys.readouterr().out
    assert cohort.origin == {"layout": "nnunet", "splits": "splits_final.json", "fold": 0}
    with pytest.raises(UserError, match="expected splits random, kfold, sts or"):
        inspect(root, splits="loocv")


def test_brats_label_4_is_stored_as_3_and_the_file_is_untouched(tmp_path):
    case = tmp_path / "BraTS20_Training_001"
    scan(case / "BraTS20_Training_001_t1.nii.gz")
    seg = label(case / "BraTS20_Training_001_seg.nii.gz", 1, 2, 4)
    before = seg.read_bytes()
    cohort = inspect(tmp_path, out=tmp_path / "cohort.json")
    assert cohort.label_map == {4: 3}
    assert Cohort.load(tmp_path / "cohort.json").relabel(np.array([4, 2]), "x").tolist() == [3, 2]
    assert seg.read_bytes() == before


def test_nnssl_file_is_a_layout_not_a_cohort(tmp_path, capsys):
    scan(tmp_path / "a.nii.gz")
    image = {"name": "a", "modality": "T1w", "image_path": "a.nii.gz"}
    held = {"subjects": {"sub-1": {"sessions": {"ses-1": {"images": [image]}}}}}
    (tmp_path / "pretrain_data.json").write_text(json.dumps({"collection_name": "open", "datasets": {"1": held}}))
    cohort = inspect(tmp_path / "pretrain_data.json")
    assert cohort == inspect(tmp_path)
    assert cohort.path(cohort.training[0].images["t1n"]).is_file()
    assert "open: 1 subject of 1 person, layout nnssl" in capsys.readouterr().out


def test_existing_cohort_file_in_a_folder_is_mentioned(flat, capsys):
    inspect(flat, out=flat / "cohort.json")
    inspect(flat)
    assert "cohort file in" in capsys.readouterr().out


def test_names_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    scan(tmp_path / "a[red]b[bold]/t1.nii.gz")
    inspect(tmp_path)
    assert "a[red]b[bold]" in capsys.readouterr().out


needs_scans = pytest.mark.skipif("MEDPRISM_REAL_DATA" not in os.environ, reason="MEDPRISM_REAL_DATA is not set")


@pytest.mark.real
@needs_scans
def test_real_sarcoma_patients(capsys):
    cohort = inspect(Path(os.environ["MEDPRISM_REAL_DATA"]) / "sts/nifti", splits="sts", fold=4)
    assert cohort.modalities == ("t1n", "ct", "pet")
    assert all(len(s.segs) == 3 for s in cohort.subjects())
    assert [len(side) for side in sides(cohort)] == [18, 3, 5]
    assert sides(cohort)[2] == [s.subject for s in splits.shipped("sts", cohort.subjects(), 4).test]
    assert "No problem found" in capsys.readouterr().out


@pytest.mark.real
@needs_scans
def test_real_brains_and_one_subject(capsys):
    root = Path(os.environ["MEDPRISM_REAL_DATA"]) / "brain"
    both = inspect(root)
    assert {s.subject: set(s.images) for s in both.subjects()} == {
        "openms-patient19": {"t1n", "t1c", "t2w", "t2f"},
        "stroke": {"t1n", "t2w", "t2f"},
    }
    (one,) = inspect(root / "openms-patient19").subjects()
    assert one.images["t1c"] == "t1c.nii.gz"
    assert one.seg == "seg_lesion_gt.nii.gz"
