import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medprism.data.cache import Cache
from medprism.data.cohort import Cohort, Subject
from medprism.data.intensity import Normaliser
from medprism.data.prepare import prepare
from medprism.data.volume import assemble
from medprism.errors import UserError
from medprism.io.nifti import read_scan, save_like
from tests.data.scans import head, lesion, write_cohort


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The cohort and a cache of it; copy before you change anything."""
    root = tmp_path_factory.mktemp("made")
    cohort = write_cohort(root / "data")
    cohort.save(root / "data/cohort.json")
    prepare(root / "data/cohort.json", out=root / "cache", margin=2)
    return root


@pytest.fixture
def copy(made, tmp_path):
    """A copy of both, to be damaged."""
    shutil.copytree(made / "data", tmp_path / "data")
    shutil.copytree(made / "cache", tmp_path / "cache")
    return tmp_path


def again(root, **options):
    return prepare(root / "data/cohort.json", out=root / "cache", margin=2, **options)


def contents(cache):
    """File name -> bytes, of everything in a cache."""
    return {path.relative_to(cache): path.read_bytes() for path in sorted(cache.rglob("*")) if path.is_file()}


def times(cache):
    """Folder of an entry -> when its description was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in cache.glob("entries/*/entry.json")}


def named(cache, subject):
    return next(entry for entry in cache.subjects() if entry.subject == subject)


def test_every_subject_is_what_assemble_makes_of_its_files(made):
    cohort, cache = Cohort.load(made / "data/cohort.json"), Cache.open(made / "cache")
    assert cache.modalities == ("t1n", "t2w", "ct")
    for subject in cohort.subjects():
        volume = assemble({m: read_scan(cohort.path(p)) for m, p in subject.images.items()}, cache.recipe)
        entry = named(cache, subject.subject)
        assert np.abs(entry.images() - volume.images).max() <= 2**-11
        assert np.array_equal(entry.foreground(), volume.foreground)
        assert entry.present == tuple(volume.present)
        assert entry.shape == volume.grid.shape
        assert np.allclose(entry.affine, volume.grid.affine)
        assert (entry.person, entry.site, entry.class_label) == (subject.person, subject.site, subject.class_label)


def test_labels_are_mapped_and_absent_ones_stay_absent(made):
    cache = Cache.open(made / "cache")
    assert [entry.labelled for entry in cache.subjects()] == [True, True, False, False, True]
    label = named(cache, "s1").label()
    assert np.bincount(label.ravel()).tolist()[1:] == [0, 0, 6 * 6 * 4]
    place = named(cache, "s1").grid.world(np.argwhere(label == 3)).mean(axis=0)
    assert np.allclose(place, (14.5, 15.5, 13.5))


def test_the_cache_knows_its_cohort(made):
    cohort, cache = Cohort.load(made / "data/cohort.json"), Cache.open(made / "cache")
    assert (cache.name, cache.split_hash, cache.labels) == ("five", cohort.split_hash, cohort.labels)
    assert [entry.subject for entry in cache.subjects("training")] == ["s1", "s2", "s3"]
    assert [entry.subject for entry in cache.subjects("test")] == ["s5"]
    assert len(cache.subjects()) == 5
    with pytest.raises(UserError, match="training, validation, test, got train"):
        cache.subjects("train")


def test_typical_scales_are_medians_over_training_subjects_only(made):
    cache = Cache.open(made / "cache")
    assert set(cache.typical_scales) == {"t1n", "t2w"}  # ct is seen by the test subject alone
    offsets = [named(cache, subject).scales["t2w"].offset for subject in ("s1", "s2", "s3")]
    assert cache.typical_scales["t2w"].offset == sorted(offsets)[1]


def test_a_folder_can_be_moved_and_holds_no_path_of_its_maker(made, tmp_path):
    shutil.copytree(made / "cache", tmp_path / "moved")
    assert len(Cache.open(tmp_path / "moved").subjects()) == 5
    texts = [path.read_text() for path in made.glob("cache/**/*.json")]
    assert not any(str(made) in text for text in texts)


def test_preparing_again_keeps_everything(copy):
    before = times(copy / "cache"), contents(copy / "cache")
    again(copy)
    assert (times(copy / "cache"), contents(copy / "cache")) == before


def test_processes_make_the_same_bytes(made, tmp_path):
    prepare(made / "data/cohort.json", out=tmp_path / "other", margin=2, workers=2)
    assert contents(tmp_path / "other") == contents(made / "cache")


@pytest.mark.slow
def test_a_dask_cluster_makes_the_same_bytes(made, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as cluster:
        prepare(made / "data/cohort.json", out=tmp_path / "other", margin=2, scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "other") == contents(made / "cache")


KILLED = """
import os, signal, sys
from pathlib import Path
import medprism.data.entry as entry
from medprism.data.prepare import prepare

write, done = Path.write_bytes, []
def slow(path, content):
    done.append(path.name)
    write(path, content[: len(content) // 2] if len(done) == 12 else content)
    if len(done) == 12:  # in the middle of the third subject
        os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = slow
prepare(sys.argv[1], out=sys.argv[2], margin=2)
"""


def test_a_run_that_was_killed_goes_on(made, tmp_path):
    cohort, out = str(made / "data/cohort.json"), tmp_path / "cache"
    ended = subprocess.run([sys.executable, "-c", KILLED, cohort, str(out)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with pytest.raises(UserError, match=r"interrupted.*prepare` again, finished subjects are kept"):
        Cache.open(out)
    before = times(out)
    assert len(before) == 2
    assert len(list(out.glob("entries/.unfinished-*"))) == 1
    prepare(cohort, out=out, margin=2)
    assert not list(out.glob("entries/.unfinished-*"))
    assert before.items() <= times(out).items()
    assert contents(out) == contents(made / "cache")


def test_a_scan_that_changed_is_prepared_again_and_the_old_one_removed(copy):
    before, old = times(copy / "cache"), Cache.open(copy / "cache")
    path = copy / "data/s2/t1.nii.gz"
    status = path.stat()
    save_like(head(seed=99).array, head(), path, kind="image", force=True)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` leaves it
    cache = again(copy)
    after = times(copy / "cache")
    assert len(after) == 5
    assert len(before.items() & after.items()) == 4
    assert {name.split("-")[0] for name in before.keys() ^ after.keys()} == {"s2"}
    assert named(cache, "s2").scales["t1n"] != named(old, "s2").scales["t1n"]
    assert named(cache, "s1").scales == named(old, "s1").scales


@pytest.mark.parametrize("name", ["images.b2nd", "foreground.b2nd", "centres.npy", "entry.json"])
def test_a_damaged_entry_is_found_and_prepared_again(made, copy, name):
    path = next(copy.glob(f"cache/entries/s3-*/{name}"))
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"s3.*prepare cohort.json --out .*cache` again"):
        Cache.open(copy / "cache").verify()
    before = times(copy / "cache")
    again(copy).verify()
    assert contents(copy / "cache") == contents(made / "cache")
    changed = {folder for folder in before if times(copy / "cache")[folder] != before[folder]}
    assert {folder.split("-")[0] for folder in changed} == {"s3"}


def test_an_entry_swapped_for_another_sound_one_is_found(copy):
    one, other = (next(copy.glob(f"cache/entries/{s}-*")) for s in ("s1", "s2"))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    with pytest.raises(UserError, match="s1 as listed in"):
        Cache.open(copy / "cache")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"spacing": (2, 2, 2)}, r"recipe \(spacing None, now \[2.0, 2.0, 2.0\]\)"),
        ({"reference": "t2w"}, r"recipe \(reference None, now t2w\)"),
        ({"margin": 3}, r"recipe \(margin 2, now 3\)"),
        ({"normalisers": {"t1n": Normaliser("percentile", "auto", "a.u.", (0, 1))}}, r"recipe \(its normalisers\)"),
    ],
)
def test_another_recipe_needs_force(copy, options, what):
    before = contents(copy / "cache")
    with pytest.raises(UserError, match=rf"got another {what}.*pass --force"):
        prepare(copy / "data/cohort.json", out=copy / "cache", **{"margin": 2, **options})
    assert contents(copy / "cache") == before
    cache = prepare(copy / "data/cohort.json", out=copy / "cache", force=True, **{"margin": 2, **options})
    assert len(times(copy / "cache")) == 5
    cache.verify()


def test_other_splits_need_force_and_cost_nothing(copy):
    cohort, before = Cohort.load(copy / "data/cohort.json"), times(copy / "cache")
    other = replace(cohort, validation=cohort.test, test=cohort.validation)
    with pytest.raises(UserError, match=r"another cohort \(its split_hash\)"):
        prepare(other, out=copy / "cache", margin=2)
    cache = prepare(other, out=copy / "cache", margin=2, force=True)
    assert cache.split_hash == other.split_hash != cohort.split_hash
    assert times(copy / "cache") == before


def test_another_version_is_refused_and_replaced_by_force(copy):
    index = copy / "cache/cache.json"
    index.write_text(index.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(UserError, match=r"version 1, got version 0.*--force"):
        Cache.open(copy / "cache")
    with pytest.raises(UserError, match=r"another version \(0, this is 1\)"):
        again(copy)
    again(copy, force=True)
    Cache.open(copy / "cache")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_other_things_is_never_touched(made, tmp_path, force):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="a new or empty folder"):
        prepare(made / "data/cohort.json", out=tmp_path, force=force)
    (tmp_path / "cache.json").write_text('{"by": "another program"}')
    with pytest.raises(UserError, match="got something else"):
        prepare(made / "data/cohort.json", out=tmp_path, force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.json", "thesis.txt"]


def test_what_is_no_cache_is_refused(tmp_path, copy):
    with pytest.raises(UserError, match=r"no cache.json in .*run `medprism prepare` first"):
        Cache.open(tmp_path / "nothing")
    (copy / "cache/cache.json").write_text('{"format": "medprism')
    with pytest.raises(UserError, match="index of a prepared cohort"):
        Cache.open(copy / "cache")


def test_a_full_disk_is_said_and_what_is_finished_is_kept(made, tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def full(path, content):
        written.append(path)
        if len(written) > 11:
            write(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    message = r"s3: expected to write .*No space left.*free some space and run again.*3 of 5 subjects"
    with pytest.raises(UserError, match=message):
        prepare(made / "data/cohort.json", out=tmp_path / "cache", margin=2)
    assert len(times(tmp_path / "cache")) == 2
    assert sorted(path.name for path in tmp_path.glob("cache/entries/.*")) == []
    monkeypatch.undo()
    prepare(made / "data/cohort.json", out=tmp_path / "cache", margin=2)
    assert contents(tmp_path / "cache") == contents(made / "cache")


def fails(root, subject, message, **changes):
    """Preparing the cohort fails over one subject; all others are kept, the cache is not complete."""
    cohort = Cohort.load(root / "data/cohort.json")
    with pytest.raises(UserError, match=message) as caught:
        prepare(replace(cohort, **changes), out=root / "new", margin=2)
    assert subject in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {name.split("-")[0] for name in times(root / "new")} == {"s1", "s2", "s3", "s4", "s5"} - {subject}
    with pytest.raises(UserError, match="interrupted"):
        Cache.open(root / "new")


def test_a_label_outside_the_declared_set_is_named(copy):
    label = lesion(head().grid, 7)
    save_like(label.array, label, copy / "data/s2/seg.nii.gz", kind="label", force=True)
    fails(copy, "s2", r"s2: expected label values \[0, 3, 4\], got also \[7\]")


def test_scans_in_different_world_spaces_are_named(copy):
    away = head()
    moved = type(away)(away.array, away.grid, None, away.header.copy(), away.file_affine, away.file_shape)
    affine = np.array(away.grid.affine)
    affine[:3, 3] += 300
    moved.header.set_sform(affine, code="scanner")
    moved.header.set_qform(affine, code="scanner")
    save_like(away.array, moved, copy / "data/s1/t2.nii.gz", kind="image", force=True)
    fails(copy, "s1", r"s1: expected t1n .* and t2w .* in one world space, got centres 520 mm apart")


def test_damaged_empty_and_missing_scans_are_named(copy):
    path = copy / "data/s3/t1.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    fails(copy, "s3", r"s3.*truncated or damaged.*s3/t1.nii.gz")
    shutil.rmtree(copy / "new")
    save_like(np.full(head().array.shape, 7, np.float32), head(), path, kind="image", force=True)
    fails(copy, "s3", r"got 7 in every voxel of .*s3/t1.nii.gz")
    shutil.rmtree(copy / "new")
    path.unlink()
    cohort = write_cohort(copy / "other")
    (copy / "other/s3/t1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"s3: expected to read .*s3/t1.nii.gz, got No such file"):
        prepare(cohort, out=copy / "new")


def test_several_failures_are_counted_and_logged(copy, caplog):
    for subject in ("s1", "s3"):
        (copy / f"data/{subject}/t1.nii.gz").write_bytes(b"")
    cohort = Cohort.load(copy / "data/cohort.json")
    with pytest.raises(UserError, match=r"s1.*\(2 of 5 subjects failed, all are named above\)"):
        prepare(cohort, out=copy / "new")
    assert [any(name in record.message for record in caplog.records) for name in ("s1", "s2", "s3")] == [
        True,
        False,
        True,
    ]


def test_the_label_of_the_reference_grid_is_taken(tmp_path):
    fine, coarse = head(), head((15, 17, 14), spacing=(2, 2, 2), origin=(0.5, 0.5, 0.5))
    for name, scan, value in (("t1", fine, 1), ("t2", coarse, 2)):
        save_like(scan.array, scan, tmp_path / f"{name}.nii.gz", kind="image")
        label = lesion(scan.grid, value)
        save_like(label.array, label, tmp_path / f"{name}-seg.nii.gz", kind="label")
    images, segs = ({m: f"{f}{end}.nii.gz" for m, f in (("t1n", "t1"), ("t2w", "t2"))} for end in ("", "-seg"))
    cohort = Cohort(
        name="two",
        modalities=("t1n", "t2w"),
        labels={"background": 0, "one": 1, "two": 2},
        regions={},
        root=tmp_path,
        training=(Subject("a", "a", images, segs=segs),),
    )
    for reference, value in (("t1n", 1), ("t2w", 2)):
        cache = prepare(cohort, out=tmp_path / reference, reference=reference)
        assert set(np.unique(cache.subjects()[0].label())) == {0, value}


def test_subjects_whose_names_are_alike_in_file_names_stay_apart(tmp_path):
    names = ("a b", "a:b", "a,b", "ä" * 80)
    for k, _ in enumerate(names):
        save_like(head(seed=k).array, head(), tmp_path / f"{k}.nii.gz", kind="image")
    save_like(head(seed=0).array, head(), tmp_path / "1.nii.gz", kind="image", force=True)  # same scan, other subject
    subjects = tuple(Subject(name, name, {"t1n": f"{k}.nii.gz"}) for k, name in enumerate(names))
    cohort = Cohort("odd", ("t1n",), {}, {}, tmp_path, training=subjects)
    cache = prepare(cohort, out=tmp_path / "cache")
    assert [entry.subject for entry in cache.subjects()] == list(names)
    assert len({entry.folder for entry in cache.subjects()}) == 4


@pytest.mark.real
def test_sarcoma_scans_keep_their_tumour(tmp_path):
    root = Path(os.environ.get("MEDPRISM_REAL_DATA", "")) / "sts/nifti"
    if "MEDPRISM_REAL_DATA" not in os.environ or not root.exists():
        pytest.skip("MEDPRISM_REAL_DATA is not set")
    files = {"ct": "CT", "pet": "PET", "t1n": "MR_T1"}
    subjects = tuple(
        Subject(
            name,
            name,
            {modality: f"{name}/{file}_image.nii.gz" for modality, file in files.items()},
            segs={modality: f"{name}/{file}_mask.nii.gz" for modality, file in files.items()},
        )
        for name in ("STS_002", "STS_031")
    )
    cohort = Cohort("sts", tuple(files), {"background": 0, "tumour": 1}, {}, root, training=subjects)
    for entry, subject in zip(prepare(cohort, out=tmp_path / "sts").subjects(), subjects, strict=True):
        whole, mr = (read_scan(cohort.path(subject.segs[m])) for m in ("ct", "t1n"))
        voxel = np.prod(entry.grid.spacing)
        assert np.isclose(entry.label().sum() * voxel, whole.array.sum() * np.prod(whole.grid.spacing), rtol=0.02)
        assert all(n <= m for n, m in zip(entry.shape, mr.grid.shape, strict=True))  # within what the MR sees
        tumour = entry.images()[:, entry.label() == 1]
        assert tumour[0].mean() > -0.5  # soft tissue in CT, not air at −2
        assert tumour[1].mean() > entry.images()[1].mean()  # FDG-avid
