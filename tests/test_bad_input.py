"""What a user gets wrong, by the command: exit code 2, one line that begins with `error:`, nothing half-written."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import lightning as L
import nibabel as nib
import numpy as np
import pytest

from medprism.cli import main
from medprism.data.cache import Cache
from medprism.io.grid import Grid
from medprism.io.nifti import new_scan, save_like
from medprism.models import NetworkConfig
from medprism.models.folder import save_model
from medprism.models.prism import Prism
from medprism.training.card import transfer_card as card
from tests.data.scans import body, head, lesion

SMALL = ["--network.width", "4", "--network.levels", "3", "--patches.size", "16,16,16", "--epochs", "1"]
MODALITIES = ("t1n", "t2w", "t2f")


def write_scans(root):
    """Four subjects `<subject>/<modality>.nii.gz` with a label of two values."""
    for number in range(4):
        for place, modality in enumerate(MODALITIES):
            scan = head(seed=3 * number + place)
            save_like(scan.array, scan, root / f"s{number}/{modality}.nii.gz", kind="image")
        save_like(lesion(head().grid, 1).array, head(), root / f"s{number}/seg.nii.gz", kind="label")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Scans, their cohort file, cache, and an untrained model: what every test gets a copy of."""
    root = tmp_path_factory.mktemp("sound")
    write_scans(root / "scans")
    cohort = str(root / "scans/cohort.json")
    divide = ["--splits", "random", "--fractions", "0.5,0.25,0.25"]
    assert main(["inspect", str(root / "scans"), "--out", cohort, "--name", "sound", *divide]) == 0
    assert main(["prepare", cohort, "--out", str(root / "cache")]) == 0
    cache = Cache.open(root / "cache")
    network = Prism(NetworkConfig(width=4, levels=3), len(MODALITIES), (16, 16, 16))
    save_model(root / "model", network, card(cache, network, {}, 0.0))
    return root


@pytest.fixture
def place(base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(place, capfd):
    """Gives a command that must be refused, and looks that it was in the way it ought to be."""

    def command(*words, says=""):
        before = listing(place)
        capfd.readouterr()
        code = main([str(word) for word in words])
        err = capfd.readouterr().err
        assert code == 2, err
        assert err.startswith("error: "), err
        assert err.endswith("\n"), err
        assert err.count("\n") == 1, err
        assert says in err
        assert listing(place) == before
        return err

    return command


def listing(folder):
    """Every file below with its size and time of change."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def change_cohort(place, change):
    path = place / "scans/cohort.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def no_nifti(path):
    path.write_bytes(gzip.compress(b"these are no voxels" * 100))


def no_gzip(path):
    path.write_bytes(b"these are no voxels" * 100)


def with_nan(path):
    array = head().array.copy()
    array[10:12, 10, 10] = np.nan
    save_raw(path, array)


def constant(path):
    save_raw(path, np.full(head().grid.shape, 7, np.float32))


def empty(path):
    save_raw(path, np.zeros(head().grid.shape, np.float32))


def elsewhere(path):
    save_raw(path, head().array, np.array([[1, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float))


def missing(path):
    path.unlink()


def save_raw(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


FILES = {f.__name__: f for f in (truncated, no_nifti, no_gzip, with_nan, constant, empty, elsewhere, missing)}


@pytest.mark.parametrize("damage", FILES)
def test_bad_scan_in_a_cohort(place, refused, damage):
    FILES[damage](place / "scans/s1/t2w.nii.gz")
    refused("inspect", "scans/cohort.json", "--out", "again.json", says="s1")


def test_missing_file_is_found_before_anything_is_prepared(place, refused):
    (place / "scans/s1/t2w.nii.gz").unlink()
    refused("prepare", "scans/cohort.json", "--out", "fresh", says="t2w")


@pytest.mark.parametrize("damage", [name for name in FILES if name != "missing"])
def test_bad_scan_is_found_by_prepare_which_keeps_the_others(place, damage, capfd):
    FILES[damage](place / "scans/s1/t2w.nii.gz")
    capfd.readouterr()
    assert main(["prepare", "scans/cohort.json", "--out", "fresh"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: s1: ")
    assert err.count("\n") == 1
    assert len(list((place / "fresh/entries").iterdir())) == 3
    assert main(["pretrain", "--data", "fresh", "--out", "run", *SMALL]) == 2  # an unfinished cache is never read
    assert not (place / "run").exists()


@pytest.mark.parametrize("damage", FILES)
def test_bad_scan_of_a_patient(place, refused, damage):
    FILES[damage](place / "scans/s1/t2w.nii.gz")
    images = ["--image.t1n", "scans/s1/t1n.nii.gz", "--image.t2w", "scans/s1/t2w.nii.gz"]
    refused("synthesize", "model", *images, "--target", "t2f", "--out", "made")


def test_ct_without_a_body(place, capfd):
    air = np.random.default_rng(0).normal(-1000, 3, (30, 34, 28)).astype(np.float32)
    save_like(body().array, body(), place / "cts/s0/ct.nii.gz", kind="image")
    save_like(air, new_scan(air, Grid(air.shape, np.eye(4))), place / "cts/s1/ct.nii.gz", kind="image")
    assert main(["inspect", "cts", "--out", "cts.json"]) == 0  # odd, but one may want to look at it
    capfd.readouterr()
    assert main(["prepare", "cts.json", "--out", "ct-cache"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: s1: ")
    assert err.count("\n") == 1


def test_unknown_modality(place, refused):
    image = ["scans/s1/t1n.nii.gz", "--out", "made"]
    refused("synthesize", "model", "--image.t9", *image, says="t9")
    refused("synthesize", "model", "--image.ct", *image, says="ct")  # one that the model does not know
    refused("synthesize", "model", "--image.t1n", *image, "--target", "t9", says="t9")
    refused("inspect", "scans", "--out", "again.json", "--modalities", "t1n,flare", says="flare")
    change_cohort(place, lambda cohort: cohort["modalities"].append("t9"))
    refused("prepare", "scans/cohort.json", "--out", "fresh", says="t9")


def test_subject_without_any_scan(place, refused):
    def strip(cohort):
        for modality in MODALITIES:
            del cohort["training"][0][modality]

    change_cohort(place, strip)
    refused("inspect", "scans/cohort.json", "--out", "again.json")
    refused("prepare", "scans/cohort.json", "--out", "fresh")


def test_duplicate_subject(place, refused):
    change_cohort(place, lambda cohort: cohort["training"].append(cohort["training"][0]))
    name = json.loads((place / "scans/cohort.json").read_text())["training"][0]["subject"]
    refused("inspect", "scans/cohort.json", "--out", "again.json", says=name)
    refused("prepare", "scans/cohort.json", "--out", "fresh", says=name)


def test_person_on_two_sides(place, refused):
    def two_sides(cohort):
        cohort["training"][0]["person"] = cohort["test"][0]["person"] = "p"

    change_cohort(place, two_sides)
    refused("prepare", "scans/cohort.json", "--out", "fresh", says="p")


def test_label_outside_the_declared_set(place, refused, capfd):
    label = lesion(head().grid, 9)
    save_like(label.array, label, place / "scans/s2/seg.nii.gz", kind="label", force=True)
    refused("inspect", "scans/cohort.json", "--out", "again.json", says="s2")
    assert main(["prepare", "scans/cohort.json", "--out", "fresh"]) == 2
    err = capfd.readouterr().err
    assert "s2: " in err
    assert "9" in err
    assert err.count("\n") == 1


def test_malformed_files_of_json_and_yaml(place, refused):
    for name in ("scans/cohort.json", "cache/cache.json", "model/model.json"):
        (place / name).write_text('{"name": ')
    (place / "odd.yaml").write_text("epochs: [")
    refused("prepare", "scans/cohort.json", "--out", "fresh")
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL)
    refused("synthesize", "model", "--image.t1n", "scans/s1/t1n.nii.gz", "--out", "made")
    refused("pretrain", "--config", "odd.yaml", "--data", "cache", "--out", "run", says="YAML")


def test_volume_smaller_than_the_patch(refused):
    size = ["--patches.size", "64,64,64"]
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL, *size, says="64×64×64")
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL, "--patches.size", "17,17,16", says="multiples of 4")


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "0"],
        ["--patches.batch", "0"],
        ["--patches.batch", "1"],
        ["--patches.per-subject", "0"],
        ["--patches.validation", "0"],
        ["--network.width", "0"],
        ["--network.levels", "0"],
        ["--network.backbone", "swinunetr"],
        ["--patches.size", "0,0,0"],
        ["--optimiser.lr", "-1"],
        ["--optimiser.lr", "nan"],
        ["--puir.temperature", "0"],
        ["--puir.decomposition", "-1"],
        ["--puir.corruption.cutout", "2"],
        ["--compute.device", "cuda"],
        ["--compute.devices", "0"],
    ],
    ids=" ".join,
)
def test_numbers_that_cannot_be(refused, words):
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL, *words)


def test_output_exists_without_force(place, refused):
    for name in ("run", "evaluation", "made"):
        (place / name).mkdir()
    (place / "run/notes.txt").write_text("mine")
    (place / "evaluation/metrics.json").write_text("mine")
    (place / "made/t2f.nii.gz").write_text("mine")
    (place / "report.html").write_text("mine")
    patient = ["--image.t1n", "scans/s1/t1n.nii.gz", "--target", "t2f"]
    refused("inspect", "scans", "--out", "scans/cohort.json", says="--force")
    refused("prepare", "scans/cohort.json", "--out", "cache", "--margin", "2", says="--force")
    refused("prepare", "scans/cohort.json", "--out", "run")  # what is not a cache is not even replaced with --force
    refused("prepare", "scans/cohort.json", "--out", "run", "--force")
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL, says="--force")
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL, "--force")  # it is no run
    refused("synthesize", "model", *patient, "--out", "made", says="--force")
    refused("synthesize", "model", *patient, "--out", "scans/s1")  # beside real scans
    refused("evaluate", "model", "--data", "cache", "--out", "evaluation", says="--force")
    refused("report", "evaluation", "--out", "report.html", says="--force")
    refused("quickstart", "--out", "run", says="--force")


@pytest.mark.parametrize("verb", ["inspect", "prepare", "pretrain", "synthesize", "evaluate", "report", "phantom"])
def test_no_space_left(place, capfd, monkeypatch, verb):
    commands = {
        "inspect": ["scans/cohort.json", "--out", "full/cohort.json"],
        "prepare": ["scans/cohort.json", "--out", "full"],
        "pretrain": ["--data", "cache", "--out", "full", *SMALL],
        "synthesize": ["model", "--image.t1n", "scans/s1/t1n.nii.gz", "--target", "t2f", "--out", "full"],
        "evaluate": ["model", "--data", "cache", "--out", "full"],
        "report": ["evaluation", "--out", "full/report.html"],
        "phantom": ["brain", "--out", "full", "--subjects", "1", "--spacing", "10"],
    }
    if verb == "report":
        assert main(["evaluate", "model", "--data", "cache", "--out", "evaluation"]) == 0
    capfd.readouterr()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)  # the last step of every file that this package writes
    assert main([verb, *commands[verb]]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert "No space left" in err
    left = [path for path in (place / "full").rglob("*") if path.is_file()] if (place / "full").exists() else []
    assert left == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without space")
def test_no_space_for_a_checkpoint(place, capfd, monkeypatch):
    save = L.Trainer.save_checkpoint

    def full(trainer, path, *_):
        save(trainer, path)
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(b"0")

    monkeypatch.setattr(L.Trainer, "save_checkpoint", full)
    assert main(["pretrain", "--data", "cache", "--out", "run", *SMALL]) == 2
    err = capfd.readouterr().err
    assert "No space left" in err
    assert err.splitlines()[-1].startswith("error: ")
    assert not list((place / "run").glob("*.part"))
    assert not list((place / "run").glob("*.ckpt"))
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert main(["pretrain", "--data", "cache", "--out", "run", *SMALL, "--resume", "auto"]) == 0


@pytest.mark.parametrize("file", ["images.b2nd", "foreground.b2nd", "entry.json"])
@pytest.mark.parametrize("damage", ["short", "gone"])
def test_corrupt_cache_entry(place, refused, file, damage):
    victim = next((place / "cache/entries").iterdir()) / file
    if damage == "short":
        victim.write_bytes(victim.read_bytes()[:-50])
    else:
        victim.unlink()
    subject = victim.parent.name.split("-")[0]
    refused("pretrain", "--data", "cache", "--out", "run", *SMALL, says=subject)
    refused("evaluate", "model", "--data", "cache", "--out", "evaluation", says=subject)
    assert main(["prepare", "scans/cohort.json", "--out", "cache"]) == 0
    assert main(["info", "cache"]) == 0


def test_flipped_bits_in_a_cache_entry(place, refused, capfd):
    for victim in (place / "cache/entries").glob("*/images.b2nd"):
        content = bytearray(victim.read_bytes())
        content[-100] ^= 255
        victim.write_bytes(content)
    refused("evaluate", "model", "--data", "cache", "--out", "evaluation", says="medprism prepare")
    capfd.readouterr()
    assert main(["pretrain", "--data", "cache", "--out", "run", *SMALL]) == 2  # found when it is read
    assert capfd.readouterr().err.count("\n") == 1
    assert main(["prepare", "scans/cohort.json", "--out", "cache"]) == 0
    assert main(["pretrain", "--data", "cache", "--out", "run", *SMALL, "--resume", "auto"]) == 0


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
@pytest.mark.parametrize("damage", ["gone", "altered", "short"])
def test_model_folder_with_a_missing_or_altered_file(place, refused, file, damage):
    victim = place / "model" / file
    content = bytearray(victim.read_bytes())
    if damage == "gone":
        victim.unlink()
    elif damage == "short":
        victim.write_bytes(content[:-20])
    elif file == "model.json":
        victim.write_bytes(content.replace(b'"width": 4', b'"width": 8'))
    else:
        content[-1] ^= 1
        victim.write_bytes(content)
    refused("synthesize", "model", "--image.t1n", "scans/s1/t1n.nii.gz", "--out", "made")
    refused("evaluate", "model", "--data", "cache", "--out", "evaluation")
    if damage == "gone":
        refused("info", "model", says=file)


def test_paths_to_nothing(refused):
    refused("inspect", "nowhere", "--out", "again.json", says="nowhere")
    refused("prepare", "nowhere.json", "--out", "fresh", says="nowhere.json")
    refused("pretrain", "--data", "nowhere", "--out", "run", says="nowhere")
    refused("synthesize", "nowhere", "--image.t1n", "scans/s1/t1n.nii.gz", "--out", "made", says="nowhere")
    refused("synthesize", "model", "--out", "made", says="--image")
    refused("evaluate", "nowhere", "--data", "cache", "--out", "evaluation", says="nowhere")
    refused("report", "nowhere", "--out", "report.html", says="nowhere")
    refused("report", "model", "--out", "report.html", says="model")
    refused("info", "nowhere", says="nowhere")
    refused("info", "scans", says="scans")


def test_model_and_cache_do_not_fit(place, refused):
    assert main(["inspect", "scans/cohort.json", "--out", "scans/two.json", "--modalities", "t1n,t2w"]) == 0
    assert main(["prepare", "scans/two.json", "--out", "two"]) == 0
    assert main(["prepare", "scans/cohort.json", "--out", "coarse", "--spacing", "2,2,2"]) == 0
    refused("evaluate", "model", "--data", "two", "--out", "evaluation", says="t2f")
    refused("evaluate", "model", "--data", "coarse", "--out", "evaluation", says="2.0")
