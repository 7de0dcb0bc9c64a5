import json
import signal

import numpy as np
import pytest
import torch

import medprism
from medprism.cli import main
from medprism.data.cache import Cache
from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.errors import UserError
from medprism.evaluation.results import Results
from medprism.finetune import finetune_transfer as transfer
from medprism.io.nifti import save_like
from medprism.methods.transfer import Transfer
from medprism.models import NetworkConfig
from medprism.training.fit import Compute
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from tests.data.scans import body, head
from tests.training.runs import assert_same, die, finish, leftovers, start, table
from tests.training.runs import train as pretrain

SHAPE = NetworkConfig(width=4, levels=3, source="tagged")
SMALL = {
    "source": ("nac",),
    "target": ("pet", "CT"),
    "patches": PatchConfig(size=(16, 16, 16), per_subject=2, batch=2, validation=1),
    "optimiser": OptimiserConfig(lr=1e-3),
    "compute": Compute("cpu"),
    "epochs": 1,
    "seed": 3,
}


def scans(number):
    """CT, PET, and PET that fades towards the middle, of one body."""
    tissue = head(seed=number).array / 100
    x, y = np.meshgrid(np.arange(30) - 15, np.arange(34) - 17, indexing="ij")
    depth = np.clip(1 - np.hypot(x, y) / 11, 0, 1)[:, :, None]
    return {"ct": body(seed=number).array, "pet": tissue, "nac": 500 * tissue * (1 - 0.7 * depth)}


def cohort(root, modalities, present, prefix="p"):
    """A subject for each element of `present`, its scans; the last is for testing, the one before for validation."""
    subjects = []
    for number, names in enumerate(present):
        name = f"{prefix}{number}"
        for modality in names:
            made = scans(number)[modality].astype(np.float32)
            save_like(made, head(), root / name / f"{modality}.nii.gz", kind="image")
        subjects.append(Subject(name, name, {m: f"{name}/{m}.nii.gz" for m in names}))
    parts = tuple(subjects[:-2]), (subjects[-2],), (subjects[-1],)
    made = Cohort("bodies", modalities, {}, {}, root, *parts)
    made.save(root / "cohort.json")
    prepare(made, out=root / "cache", margin=2)
    return root / "cache"


ALL = ("ct", "pet", "nac")
PRESENT = (ALL, ("pet", "nac"), ("ct", "nac"), ("ct", "pet"), ("nac",), ALL, ALL)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """With the new modality, and of others with the known ones alone."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("petct")
    return cohort(root / "new", ALL, PRESENT), cohort(root / "known", ("pet", "ct"), [("pet", "ct")] * 3, "k")


@pytest.fixture(scope="module")
def known(caches, tmp_path_factory):
    patches = PatchConfig(size=(16, 16, 16), per_subject=2, batch=2, validation=1)
    return pretrain(caches[1], tmp_path_factory.mktemp("known") / "run", epochs=1, network=SHAPE, patches=patches)


@pytest.fixture(scope="module")
def run(caches, known, tmp_path_factory):
    return transfer(data=caches[0], out=tmp_path_factory.mktemp("run") / "run", init=known, **SMALL)


def test_a_run_is_a_model_of_the_sources_and_targets_alone(caches, run, tmp_path, capsys):
    assert set(table(run)[0]) >= {"train/loss", "train/transfer", "train/invariance", "val/psnr"}
    model = medprism.load(run, "cpu")
    assert (model.modalities, model.takes, model.makes) == (ALL, ("nac",), ("ct", "pet"))
    pairs = {(*row["given"], row["target"]) for row in model.card["metrics"]["rows"] if row["group"] == "pair"}
    assert pairs == {("nac", "ct"), ("nac", "pet")}
    raw = caches[0].parent / "p6"
    out = tmp_path / "out"
    words = ["synthesize", str(run), "--image.nac", str(raw / "nac.nii.gz"), "--out", str(out)]
    assert main(words) == 0
    assert {path.name for path in out.glob("*.nii.gz")} == {"ct.nii.gz", "pet.nii.gz"}
    assert json.loads((out / "pet.json").read_text())["AbsentModalities"] == []
    assert main([*words[:2], "--image.ct", str(raw / "ct.nii.gz"), "--out", str(tmp_path / "other")]) == 2
    assert "scans among nac" in capsys.readouterr().err


def test_it_is_scored_on_what_it_was_made_for(caches, run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--data", str(caches[0]), "--out", str(tmp_path / "out")]) == 0
    results = Results.read(tmp_path / "out")
    pairs = {(*row.given, row.target) for row in results.rows if row.group in ("pair", "diagonal")}
    assert pairs == {("nac", "ct"), ("nac", "pet")}
    assert {row.method for row in results.rows} >= {"model", "identity", "lookup"}
    assert (results.head["sources"], results.head["makes"]) == (["nac"], ["ct", "pet"])
    told = capsys.readouterr().out
    [columns] = {tuple(line.split()) for line in told.splitlines() if line.split()[:2] == ["given", "method"]}
    assert columns == ("given", "method", "ct", "pet", "mean")
    assert main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "report.html")]) == 0


def test_what_is_not_made_is_air(caches, run):
    model, [entry] = medprism.load(run, "cpu"), Cache.open(caches[0]).subjects("test")
    made = model.predict(entry.images(), np.array([False, False, True]))
    assert len(np.unique(made[2])) == 1
    assert len(np.unique(made[0])) > 100


def test_it_can_be_trained_from_nothing(caches, tmp_path):
    run = transfer(data=caches[0], out=tmp_path / "run", network=SHAPE, **SMALL)
    card = medprism.load(run, "cpu").card
    assert card["initialised_from"] is None
    assert len(card["training_persons"]) == 3 + 1  # p3 has no source, p4 no target


def tune(cache, out, **changes):
    """Fine-tune from nothing, in a process of its own."""
    torch.set_num_threads(1)
    transfer(data=cache, out=out, network=SHAPE, **{**SMALL, **changes})


def test_killed_it_goes_on_to_the_very_same_model(caches, tmp_path):
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert finish(start(tune, caches[0], straight, epochs=3)) == [0]
    for at, name in ((3, "step"), (2, "last.ckpt"), (1, "validation/metrics.json")):
        code = finish(start(die, Transfer, tune, caches[0], run, at, name, resume="auto", epochs=3))
        assert code == [-signal.SIGKILL], (at, name)
    assert finish(start(tune, caches[0], run, resume="auto", epochs=3)) == [0]
    assert_same(run, straight)
    tables = [json.loads((folder / "validation/metrics.json").read_text()) for folder in (run, straight)]
    assert tables[0] == tables[1]
    assert leftovers(run) == []


def test_persons_of_the_start_are_told(caches, known, run):
    seen = set(medprism.load(known, "cpu").card["training_persons"])
    card = medprism.load(run, "cpu").card
    assert seen < set(card["training_persons"])
    assert card["initialised_from"] == medprism.load(known, "cpu").card["sha256"]


def test_names_that_do_not_fit(caches, known, tmp_path):
    for source, target, told in (
        (("t1n",), ("pet",), "--source among ct, pet, nac of bodies, got t1n"),
        ((), ("pet",), "--source among .*, got none"),
        (("nac",), ("nac", "ct"), "got nac as both"),
    ):
        with pytest.raises(UserError, match=told):
            transfer(data=caches[0], out=tmp_path / "run", **{**SMALL, "source": source, "target": target})
    patches = PatchConfig(size=(16, 16, 16), intensity=0.5)
    with pytest.raises(UserError, match=r"patches\.intensity"):
        transfer(data=caches[0], out=tmp_path / "run", **{**SMALL, "patches": patches})
    lonely = cohort(tmp_path / "lonely", ALL, [("nac",), ("ct", "pet"), ALL, ALL])
    with pytest.raises(UserError, match="with nac and ct or pet, got none"):
        transfer(data=lonely, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
