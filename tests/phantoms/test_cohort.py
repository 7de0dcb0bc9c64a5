import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medprism.data.cohort import Cohort
from medprism.errors import UserError
from medprism.phantoms import cohort as module
from medprism.phantoms.brain import Brain
from medprism.phantoms.cohort import _Brains, write_brain_cohort

EVEN = (0.7, 0.1, 0.2)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


@pytest.fixture
def quick(monkeypatch):
    """Brains of a few voxels in the place of real ones; the calls made."""
    calls = []

    def fake(seed, index, spacing, scanner, low_grade):
        calls.append(index)
        rng = np.random.default_rng([seed, index])
        label = np.zeros((5, 6, 7), np.uint8)
        label[2, 2, 2:4] = 1 + 2 * (index % 2), 2
        images = {name: rng.random(label.shape, np.float32) for name in module.MODALITIES}
        return Brain(images, label, np.diag([spacing] * 3 + [1.0]), {"atrophy": 0.5})

    monkeypatch.setattr(module, "brain_subject", fake)
    return calls


def test_both_scanners_image_half_of_the_persons_each_as_they_would_alone(tmp_path):
    made = {
        name: Cohort.load(write_brain_cohort(tmp_path / name, subjects=4, spacing=8.0, scanner=name))
        for name in ("A", "B", "both")
    }
    sites = {subject.subject: subject.site for subject in made["both"].subjects()}
    assert sites == {"sub-0001": "A", "sub-0002": "A", "sub-0003": "B", "sub-0004": "B"}
    for name, site in sites.items():
        assert files(tmp_path / "both" / name) == files(tmp_path / site / name)


def test_real_cohort_is_read_by_the_cohort_reader(tmp_path):
    path = write_brain_cohort(tmp_path / "out", subjects=3, spacing=6.0, scanner="B", seed=5)
    cohort = Cohort.load(path)
    assert cohort.name == "phantom-brain-B"
    assert cohort.origin["phantom"] is True
    assert cohort.modalities == ("t1n", "t1c", "t2w", "t2f")
    assert cohort.labels == {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    assert cohort.regions == {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
    assert (len(cohort.training), len(cohort.validation), len(cohort.test)) == (1, 1, 1)
    for subject in cohort.subjects():
        assert subject.site == "B"
        for relative in [*subject.images.values(), subject.seg]:
            image = nib.load(cohort.root / relative)
            assert image.shape == (31, 37, 31)
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)
            assert image.get_data_dtype() == (np.uint8 if relative == subject.seg else np.float32)
        label = np.asarray(nib.load(cohort.root / subject.seg).dataobj)
        assert subject.class_label == int((label == 3).any())
        note = json.loads((cohort.root / subject.subject / "phantom.json").read_text())
        assert note["phantom"] is True
        assert note["truth"]["seed_mm"]


@pytest.mark.slow
def test_same_seed_same_bytes_with_any_number_of_workers(tmp_path):
    for name, workers in (("none", 0), ("two", 2)):
        write_brain_cohort(tmp_path / name, subjects=3, spacing=6.0, missing_rate=0.3, workers=workers)
    assert files(tmp_path / "none") == files(tmp_path / "two")


def test_no_time_stamp_in_the_files(tmp_path, quick):
    write_brain_cohort(tmp_path / "out", subjects=1, fractions=(1, 0, 0))
    packed = (tmp_path / "out/sub-0001/sub-0001-t1n.nii.gz").read_bytes()
    assert packed[4:8] == b"\0\0\0\0"
    assert gzip.decompress(packed)


def test_an_interrupted_call_goes_on(tmp_path, quick, monkeypatch):
    write_brain_cohort(tmp_path / "whole", subjects=6, missing_rate=0.4, seed=3)
    quick.clear()
    save, left = module.save_like, [9]

    def full_disk(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return save(*args, **kwargs)

    monkeypatch.setattr(module, "save_like", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_brain_cohort(tmp_path / "cut", subjects=6, missing_rate=0.4, seed=3)
    assert not (tmp_path / "cut/cohort.json").exists()
    finished = [path.name for path in (tmp_path / "cut").iterdir() if path.is_dir()]
    assert 1 <= len(finished) < 6
    assert not any(name.startswith(".") for name in finished)

    monkeypatch.setattr(module, "save_like", save)
    quick.clear()
    write_brain_cohort(tmp_path / "cut", subjects=6, missing_rate=0.4, seed=3)
    assert len(quick) == 6 - len(finished)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_what_exists_is_kept_without_force(tmp_path, quick):
    out = tmp_path / "out"
    write_brain_cohort(out, subjects=3)
    before = files(out)
    for change in ({}, {"seed": 1}, {"subjects": 4}):
        with pytest.raises(UserError, match="--force"):
            write_brain_cohort(out, **({"subjects": 3} | change))
    assert files(out) == before
    write_brain_cohort(out, subjects=2, seed=1, fractions=(0.5, 0, 0.5), force=True)
    assert len(Cohort.load(out / "cohort.json").subjects()) == 2
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["sub-0001", "sub-0002"]


def test_a_folder_of_something_else_is_never_touched(tmp_path, quick):
    (tmp_path / "sub-0001").mkdir()
    (tmp_path / "sub-0001/scan.nii.gz").write_bytes(b"precious")
    for force in (False, True):
        with pytest.raises(UserError, match="other files"):
            write_brain_cohort(tmp_path, subjects=3, force=force)
    assert files(tmp_path) == {"sub-0001/scan.nii.gz": b"precious"}


def test_missing_rate_holds_in_training_only_and_leaves_one(tmp_path, quick):
    path = write_brain_cohort(tmp_path / "out", subjects=40, missing_rate=0.6, seed=2)
    cohort = Cohort.load(path)
    counts = [len(subject.images) for subject in cohort.training]
    assert min(counts) == 1
    assert max(counts) > 1
    assert all(len(subject.images) == 4 for subject in (*cohort.validation, *cohort.test))
    for subject in cohort.subjects():
        there = {p.name for p in (cohort.root / subject.subject).glob("*.nii.gz")}
        assert there == {Path(p).name for p in (*subject.images.values(), subject.seg)}


def test_the_share_of_low_grade_reaches_the_persons(tmp_path, monkeypatch, quick):
    asked, fake = [], module.brain_subject
    monkeypatch.setattr(module, "brain_subject", lambda *args: asked.append(args[-1]) or fake(*args))
    path = write_brain_cohort(tmp_path / "out", subjects=3, low_grade=0.5)
    assert asked == [0.5] * 3
    assert Cohort.load(path).origin["low_grade"] == 0.5
    with pytest.raises(UserError, match="--force"):
        write_brain_cohort(tmp_path / "out", subjects=3, low_grade=0.4)


def test_missing_rate_is_the_expected_share():
    recipe = _Brains(4000, 3.0, "A", 0.3, 0, (1.0, 0.0, 0.0))
    splits = recipe.splits()
    assert len(splits["training"]) == 4000
    kept = np.mean([len(recipe.present(i, splits)) for i in range(4000)]) / 4
    # a person who would lose all keeps one: 0.3⁴ of the persons
    assert kept == pytest.approx(0.7 + 0.3**4 / 4, abs=0.01)


@pytest.mark.parametrize("subjects", [1, 2, 3, 4, 10, 31])
def test_splits_hold_everybody_once(subjects):
    splits = _Brains(subjects, 3.0, "A", 0.0, 0, EVEN).splits()
    assert sorted(i for part in splits.values() for i in part) == list(range(subjects))
    if subjects >= 3:
        assert all(splits.values())
    assert len(splits["training"]) >= subjects // 2 or subjects <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": 0}, "subject"),
        ({"spacing": 0.1}, "spacing"),
        ({"missing_rate": 1.0}, "missing rate"),
        ({"seed": -1}, "seed"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"scanner": "C"}, "scanner"),
        ({"low_grade": 1.5}, "low grade"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        write_brain_cohort(tmp_path / "out", **({"subjects": 3} | change))
    assert not (tmp_path / "out").exists()
