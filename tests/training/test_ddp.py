"""Two processes with batches of B are one process with batches of 2B: same loss, same gradients, same weights."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from medprism.methods.puir import PUIRConfig
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from tests.training.runs import SMALL, finish, start, table, train, train_together

ONE = PatchConfig(size=(16, 16, 16), per_subject=1, batch=4, validation=1)
EACH_OF_TWO = replace(ONE, batch=2)


def last(run):
    return torch.load(run / "last.ckpt", weights_only=True)


def both(cache, folder, **changes):
    """The runs of one and of two processes."""
    assert finish(start(train, cache, folder / "one", patches=ONE, **changes)) == [0]
    assert train_together(2, cache, folder / "two", patches=EACH_OF_TWO, **changes) == [0, 0]
    return folder / "one", folder / "two"


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {"schedule": "batched"},
        {"schedule": "sequential"},
        {"schedule": "batched", "decomposition": 0.0},  # leaves the decoder without gradient
        {"schedule": "sequential", "decomposition": 0.0},
        {"anchor": "weighted", "anchor_modality": "t1n"},  # one of the processes may have no anchor
    ],
    ids=lambda parts: "-".join(str(value) for value in parts.values()),
)
def test_one_step_has_the_same_loss_gradients_and_weights(cache, tmp_path, parts):
    """One step on four sub-volumes of 3, 1, 2 and 1 scans: two processes differ in their pairs and in their passes."""
    optimiser = OptimiserConfig(lr=1e-3, clip=0)
    one, two = both(cache, tmp_path, epochs=1, optimiser=optimiser, puir=PUIRConfig(embedding=16, **parts))
    [row], [other] = table(one), table(two)
    assert {"train/loss", "train/contrastive", "val/psnr"} <= row.keys()
    for name in row.keys() - {"seconds"}:
        assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-5), name
    states = [last(run)["optimizer_states"][0]["state"] for run in (one, two)]
    assert states[0].keys() == states[1].keys()  # the same parameters had a gradient
    for number, state in states[0].items():  # a tenth of the first gradient; weights hide its scale
        torch.testing.assert_close(state["exp_avg"], states[1][number]["exp_avg"], rtol=1e-5, atol=1e-5)
    for name, weights in last(one)["state_dict"].items():
        torch.testing.assert_close(weights, last(two)["state_dict"][name], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["batched", "sequential"])
def test_whole_trainings_agree_with_clipped_gradients(cache, tmp_path, schedule):
    one, two = both(cache, tmp_path, puir=PUIRConfig(embedding=16, schedule=schedule))
    assert len(table(one)) == len(table(two)) == SMALL["epochs"]
    for row, other in zip(table(one), table(two), strict=True):
        for name in row.keys() - {"seconds"}:
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4), name
    assert [len(list(run.glob("tensorboard/events.*"))) for run in (one, two)] == [1, 1]
    assert files(one) == files(two)


@pytest.mark.slow
def test_the_command_starts_its_processes_and_says_when_it_is_done(cache, tmp_path):
    """As people do it: `--compute.devices 2`; Lightning starts the second process."""
    run = tmp_path / "run"
    words = (
        f"pretrain --data {cache} --out {run} --network.width 4 --network.levels 3 --puir.embedding 16 "
        "--patches.size 16,16,16 --patches.per_subject 1 --patches.validation 1 --patches.batch 2 --epochs 2 --seed 3 "
        "--optimiser.lr 1e-3 --optimiser.average 0.9 --compute.device cpu --compute.devices 2 --resume auto"
    )
    command = [sys.executable, "-m", "medprism", *words.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # the second time it is complete
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    assert "is complete" in done.stderr
    assert finish(start(train, cache, tmp_path / "one", patches=ONE, epochs=2)) == [0]
    for row, other in zip(table(tmp_path / "one"), table(run), strict=True):
        for name in row.keys() - {"seconds"}:
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4), name


def files(run):
    return sorted(path.name for path in run.rglob("*") if not path.name.startswith("events."))
