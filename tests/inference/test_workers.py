"""Cohort work on dask workers: the same files as one process writes, also when a worker dies."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from medprism import models
from medprism.cli import main
from medprism.data import spread
from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.errors import UserError
from medprism.evaluation.evaluate import evaluate
from medprism.inference.classify import classify
from medprism.inference.segment import segment
from medprism.inference.synthesize import synthesize
from medprism.io import read_scan
from medprism.io.nifti import save_like
from medprism.models import NetworkConfig, Prism
from medprism.models.folder import add_to_card, save_model
from tests.inference.test_synthesize import cohort
from tests.inference.tiny import (
    CLASSIFICATION,
    MODALITIES,
    SEGMENTATION,
    Bright,
    Mean,
    Mood,
    build,
    card,
    head,
    model_folder,
    write,
)

distributed = pytest.importorskip("distributed")
HOLES = ((), ("t2f",), ("t1n", "t2w"), ("t1n",))


@pytest.fixture(scope="module")
def scheduler():
    """A cluster of threads, in which a network of the tests can be built."""
    with distributed.LocalCluster(
        processes=False, n_workers=2, threads_per_worker=2, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def tiny_build(monkeypatch):
    monkeypatch.setattr(models, "build", build)


@pytest.fixture
def data(tmp_path):
    return cohort(tmp_path / "raw", holes=HOLES)


def files(folder):
    """What is in a folder; sidecars without what a clock says."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.loads(content)
            content.pop("Seconds", None)
        found[path.relative_to(folder).as_posix()] = content
    return found


VERBS = {
    "synthesize": (synthesize, Mean, {}, {"uncertainty": True}),
    "segment": (segment, Bright, SEGMENTATION, {"small": {"bright": 5.0}, "probabilities": True}),
    "classify": (classify, Mood, CLASSIFICATION, {}),
}


@pytest.mark.parametrize("verb", VERBS)
def test_workers_write_what_one_process_writes(tmp_path, tiny_build, data, scheduler, verb, monkeypatch):
    function, network, told, options = VERBS[verb]
    model = model_folder(tmp_path / "model", network(), **told)
    one = function(model, data=data, out=tmp_path / "one", device="cpu", **options)
    monkeypatch.chdir(tmp_path)  # workers start from wherever they are; relative paths are of who gives the command
    two = function("model", data="raw/cohort.json", out="two", device="cpu", scheduler=scheduler, **options)
    assert [path.relative_to(tmp_path / "one") for path in one] == [path.relative_to("two") for path in two]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert function(model, data=data, out=tmp_path / "two", device="cpu", scheduler=scheduler, **options)


def test_a_bad_subject_does_not_stop_the_others(tmp_path, tiny_build, data, scheduler):
    (tmp_path / "raw/sub-1/t1n.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"1 without.*sub-1: "):
        synthesize(model_folder(tmp_path / "model"), data=data, out=tmp_path / "out", scheduler=scheduler)
    assert not (tmp_path / "out/sub-1").exists()
    assert (tmp_path / "out/sub-3/t1n.nii.gz").exists()


def test_an_output_that_cannot_be_written_stops_it(tmp_path, tiny_build, data, scheduler):
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"expected to write .* from the system; write elsewhere"):
        synthesize(model_folder(tmp_path / "model"), data=data, out=tmp_path / "out", scheduler=scheduler)


def test_workers_see_that_a_model_was_trained_again(tmp_path, tiny_build, data, scheduler):
    model = model_folder(tmp_path / "model")
    synthesize(model, data=data, out=tmp_path / "out", scheduler=scheduler)
    other = Mean()
    other.gain.data += 0.5
    save_model(model, other, card())
    synthesize(model, data=data, out=tmp_path / "out", scheduler=scheduler, force=True)
    synthesize(model, data=data, out=tmp_path / "one")
    assert files(tmp_path / "out") == files(tmp_path / "one")


def test_one_patient_is_not_spread(tmp_path, tiny_build, capsys):
    scan, model = write(tmp_path / "a.nii.gz", head()), model_folder(tmp_path / "model")
    words = ["synthesize", str(model), "--image.t1n", str(scan), "--out", str(tmp_path / "out")]
    assert main([*words, "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "with --scheduler, got scans of one patient; leave it out" in capsys.readouterr().err


LABELS = {"background": 0, "dark": 1, "bright": 4}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Labelled and classed subjects with holes, two to train on and four to test."""
    root, subjects = tmp_path_factory.mktemp("cache"), []
    for number, absent in enumerate(((), (), *HOLES)):
        name, base = f"s{number}", None
        given = [m for m in MODALITIES if m not in absent]
        for seed, modality in enumerate(given):
            base = write(root / name / f"{modality}.nii.gz", head(seed=10 * number + seed))
        label = np.zeros(head().shape, np.uint8)
        label[8:13, 9:14, 6:12], label[9:11, 10:12, 7:9] = 1, 4
        save_like(label, read_scan(base), root / name / "seg.nii.gz", kind="label")
        images = {m: f"{name}/{m}.nii.gz" for m in given}
        subjects.append(Subject(name, name, images, seg=f"{name}/seg.nii.gz", class_label=number % 3))
    made = Cohort(
        "c",
        MODALITIES,
        LABELS,
        SEGMENTATION["regions"],
        root,
        tuple(subjects[:2]),
        (),
        tuple(subjects[2:]),
        classes=CLASSIFICATION["classes"],
    )
    prepare(made, out=root / "cache")
    return root / "cache"


@pytest.mark.parametrize(
    ("network", "told", "options"),
    [
        (Mean, {}, {"protocols": ("strict", "paper"), "given": ("single", "rest")}),
        (Bright, SEGMENTATION, {"small": {"bright": 5.0}, "detection": True}),
        (Mood, CLASSIFICATION, {}),
    ],
    ids=["transfer", "segmentation", "classification"],
)
def test_workers_score_as_one_process_does(tmp_path, tiny_build, cache, scheduler, network, told, options):
    model = model_folder(tmp_path / "model", network(), **told)
    add_to_card(model, training_persons=[])
    for name, where in (("one", None), ("two", scheduler)):
        evaluate(model, data=cache, out=tmp_path / name, device="cpu", scheduler=where, **options)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {"metrics.json", "per_subject.csv"} <= one.keys()
    assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "one", "two"]


def test_the_representation_is_not_spread(tmp_path, cache):
    with pytest.raises(UserError, match="--scheduler with the scores of a task"):
        evaluate(tmp_path, data=cache, out=tmp_path / "out", representation=True, scheduler="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_no_trace(tmp_path):
    """Two processes as workers, one of which gets SIGKILL after the first scan is written; its nanny starts another."""
    torch.manual_seed(0)
    network = Prism(NetworkConfig(width=4, levels=3), 3, (16, 16, 16))
    told = card(patch_size=[16] * 3) | {"architecture": network.architecture}
    model = save_model(tmp_path / "model", network, told)
    data = cohort(tmp_path / "raw", holes=(("t2f",),) * 6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as dask starts its workers
    try:
        synthesize(model, data=data, out=tmp_path / "one", device="cpu")
    finally:
        torch.set_num_threads(threads)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        victim = cluster.workers[0].pid

        def kill():
            while not list((tmp_path / "two").rglob("*.nii.gz")):
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        synthesize(model, data=data, out=tmp_path / "two", device="cpu", scheduler=cluster.scheduler_address)
        killer.join()
        assert victim not in {worker.pid for worker in cluster.workers.values()}
    assert files(tmp_path / "one") == {n: c for n, c in files(tmp_path / "two").items() if not n.endswith(".part")}


def test_a_scheduler_that_does_not_answer_is_told_and_nothing_is_left(tmp_path, tiny_build, data, cache, monkeypatch):
    monkeypatch.setattr(spread, "PATIENCE", 0.2)
    model, nowhere = model_folder(tmp_path / "model"), "tcp://127.0.0.1:1"
    add_to_card(model, training_persons=[])
    for verb, source in ((synthesize, data), (evaluate, cache)):
        begun = time.monotonic()
        with pytest.raises(UserError, match=f"a dask scheduler at {nowhere}, got .*start one with `dask scheduler`"):
            verb(model, data=source, out=tmp_path / "out", scheduler=nowhere)
        assert time.monotonic() - begun < 20
        assert not (tmp_path / "out").exists()
