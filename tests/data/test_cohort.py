import json
from dataclasses import replace

import numpy as np
import pytest

from medprism.data.cohort import Cohort, Subject
from medprism.errors import UserError

LABELS = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}


def subject(name="a", person=None, **fields):
    return Subject(name, person or name, fields.pop("images", {"t1n": f"{name}/t1.nii.gz"}), **fields)


def cohort(root, **fields):
    settings = {
        "name": "toy",
        "modalities": ("t1n", "t2f"),
        "labels": LABELS,
        "regions": {"WT": [1, 2, 3], "TC": [1, 3]},
        "training": (subject("a", seg="a/seg.nii.gz"),),
    }
    return Cohort(root=root, **(settings | fields))


def full(root):
    return cohort(
        root,
        training=(subject("a1", "a", seg="a/seg.nii.gz", site="X", class_label=1), subject("a2", "a")),
        validation=(subject("b", images={"t2f": "four.nii.gz#3"}),),
        test=(subject("c", seg="c/t1_mask.nii.gz", segs={"t1n": "c/t1_mask.nii.gz"}),),
        label_map={4: 3},
        classes={"LGG": 0, "HGG": 1},
        origin={"layout": "brats", "seed": 3},
    )


def write(path, **content):
    path.write_text(json.dumps({"modalities": ["t1n"], "training": []} | content))
    return path


def test_save_then_load_is_the_same_cohort(tmp_path):
    original = full(tmp_path)
    path = original.save(tmp_path / "cohort.json")
    assert Cohort.load(path, check_files=False) == original


def test_file_is_a_flat_datalist(tmp_path):
    content = json.loads(full(tmp_path).save(tmp_path / "cohort.json").read_text())
    assert content["training"][0] == {
        "subject": "a1", "person": "a", "site": "X", "t1n": "a1/t1.nii.gz", "seg": "a/seg.nii.gz", "class": 1,
    }  # fmt: skip
    assert content["validation"][0] == {"subject": "b", "person": "b", "t2f": "four.nii.gz#3"}
    assert content["test"][0]["seg.t1n"] == "c/t1_mask.nii.gz"
    assert content["label_map"] == {"4": 3}


def test_monai_reads_the_file(tmp_path):
    from monai.data import load_decathlon_datalist

    (tmp_path / "a1").mkdir()
    (tmp_path / "a1/t1.nii.gz").touch()
    path = full(tmp_path).save(tmp_path / "cohort.json")
    items = load_decathlon_datalist(str(path), is_segmentation=False, data_list_key="training")
    assert items[0]["t1n"] == str(tmp_path / "a1/t1.nii.gz")
    assert "t2f" not in items[0]


def test_saving_elsewhere_keeps_pointing_at_the_files(tmp_path):
    scan = tmp_path / "data/a/t1.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    original = cohort(tmp_path / "data", training=(subject("a"),))
    path = original.save(tmp_path / "lists/deep/cohort.json")
    assert json.loads(path.read_text())["training"][0]["t1n"] == "../../data/a/t1.nii.gz"
    loaded = Cohort.load(path)
    assert loaded.path(loaded.training[0].images["t1n"]).resolve() == scan
    assert loaded.moved(tmp_path / "data") == original


def test_existing_file_is_kept_without_force(tmp_path):
    path = tmp_path / "cohort.json"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        full(tmp_path).save(path)
    assert path.read_text() == "mine"
    full(tmp_path).save(path, force=True)
    assert list(tmp_path.iterdir()) == [path]


def test_aliases_in_the_file_become_canonical(tmp_path):
    item = {"subject": "a", "T1ce": "a/x.nii.gz", "FLAIR": "a/y.nii.gz", "seg.FLAIR": "a/s.nii.gz"}
    path = write(tmp_path / "c.json", modalities=["T1Gd", "flair"], labels={"background": 0, "x": 1}, training=[item])
    loaded = Cohort.load(path, check_files=False)
    assert loaded.modalities == ("t1c", "t2f")
    assert loaded.training[0].images == {"t1c": "a/x.nii.gz", "t2f": "a/y.nii.gz"}
    assert loaded.training[0].segs == {"t2f": "a/s.nii.gz"}
    assert loaded.training[0].person == "a"


def test_split_hash_sees_sides_and_persons_only(tmp_path):
    base = full(tmp_path)
    reordered = replace(base, training=base.training[::-1])
    thinned = replace(base, validation=(replace(base.validation[0], images={"t1n": "elsewhere.nii"}),))
    assert base.split_hash == reordered.split_hash == thinned.split_hash
    swapped = replace(base, validation=base.test, test=base.validation)
    other_person = replace(base, test=(replace(base.test[0], person="d"),))
    assert len({base.split_hash, swapped.split_hash, other_person.split_hash}) == 3


def test_relabel_maps_and_keeps_the_shape(tmp_path):
    base = cohort(tmp_path, label_map={4: 3})
    stored = np.array([[0, 4, 1], [2, 2, 4]])
    mapped = base.relabel(stored, "a")
    assert mapped.dtype == np.uint8
    np.testing.assert_array_equal(mapped, [[0, 3, 1], [2, 2, 3]])
    assert cohort(tmp_path, labels={"background": 0, "x": 300}, regions={}).relabel([[300]], "a").dtype == np.uint16


def test_relabel_refuses_values_outside_the_set(tmp_path):
    with pytest.raises(UserError, match=r"STS_1: expected label values \[0, 1, 2, 3\], got also \[4, 7\]"):
        cohort(tmp_path).relabel(np.array([0, 1, 4, 7]), "STS_1")


def test_subjects_by_split(tmp_path):
    base = full(tmp_path)
    assert [s.subject for s in base.subjects()] == ["a1", "a2", "b", "c"]
    assert base.subjects("test") == base.test
    with pytest.raises(UserError, match=r"expected a split .*got 'val'"):
        base.subjects("val")


def test_keeping_takes_the_label_of_a_removed_grid_along():
    item = Subject("a", "a", {"ct": "ct", "pet": "pet"}, seg="m_ct", segs={"ct": "m_ct", "pet": "m_pet"})
    assert item.keeping(("pet",)) == Subject("a", "a", {"pet": "pet"}, seg="m_pet", segs={"pet": "m_pet"})
    common = Subject("a", "a", {"ct": "ct", "pet": "pet"}, seg="m")
    assert common.keeping(("pet",)).seg == "m"
    assert item.label_for("pet") == "m_pet"
    assert common.label_for("pet") == "m"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"training": (subject("a"), subject("a"))}, "subject 'a' is listed twice"),
        ({"training": (subject("a"),), "test": (subject("a"),)}, "subject 'a' is listed twice"),
        (
            {"training": (subject("a1", "a"),), "test": (subject("a2", "a"),)},
            "person 'a' is on two sides, training and",
        ),
        ({"training": (subject("../a"),)}, "can name a folder"),
        ({"training": (subject("a", images={}),)}, "subject 'a' has no scan"),
        ({"training": (subject("a", images={"ct": "x"}),)}, "expected modalities t1n t2f, got 'ct'"),
        ({"training": ()}, "at least one subject"),
        ({"modalities": ()}, "at least one modality"),
        ({"modalities": ("t1n", "T2")}, "canonical modality names, got 'T2'"),
        ({"modalities": ("t1n", "t1n")}, "listed twice"),
        ({"labels": {"x": 1}, "regions": {}}, "background 0"),
        ({"labels": {"background": 0, "x": 1, "y": 1}, "regions": {}}, "different values"),
        ({"labels": {"background": 0, "x": 70000}, "regions": {}}, "0 to 65535"),
        ({"regions": {"WT": [1, 9]}}, "region 'WT'"),
        ({"label_map": {4: 9}}, "label_map"),
        ({"labels": {}, "regions": {}}, "names no `labels`"),
        ({"training": (subject("a", segs={"t2f": "x"}),)}, "on the grid of a scan that it lacks"),
        ({"classes": {"LGG": 0}, "training": (subject("a", class_label=5),)}, "expected a class of"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        cohort(tmp_path, **fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"training": [{"subject": "a", "flare": "x"}]},
            r"training\[0\] \(a\): expected a modality .*did you mean t2f",
        ),
        ({"training": [{"subject": "a", "t1": "x", "T1w": "y"}]}, "two files for t1n, x and y"),
        ({"training": [{"t1n": "x"}]}, r"training\[0\]: expected an object with a text `subject`"),
        ({"training": [{"subject": "a", "t1n": None}]}, "expected a text for 't1n', got None"),
        ({"training": [{"subject": "a", "t1n": "x", "class": "HGG"}]}, "expected a whole number for 'class'"),
        ({"training": [{"subject": "a", "age": 63}]}, "got 'age'"),
        ({"training": {"a": 1}}, "expected 'training' to be a list"),
        ({"labels": {"background": "none"}}, "whole numbers in 'background'"),
        ({"labels": [0, 1]}, "expected 'labels' to be a dict"),
        ({"regions": {"WT": 1}}, "region 'WT' to be a list"),
        ({"trainning": []}, "unknown key 'trainning'"),
        ({"modalities": ["T7"]}, "got 'T7'"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        Cohort.load(write(tmp_path / "c.json", **content))


def test_malformed_json_names_line_and_column(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"name": "x",\n "modalities": [}')
    with pytest.raises(UserError, match="malformed at line 2 column 17"):
        Cohort.load(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="expected an object"):
        Cohort.load(path)
    with pytest.raises(UserError, match="does not exist"):
        Cohort.load(tmp_path / "other.json")


def test_missing_scan_is_named_with_its_subject(tmp_path):
    path = write(tmp_path / "c.json", training=[{"subject": "a", "t1n": "a/t1.nii.gz#2"}])
    with pytest.raises(UserError, match=r"a: expected the file .*a/t1.nii.gz"):
        Cohort.load(path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/t1.nii.gz").touch()
    assert Cohort.load(path).training[0].subject == "a"
