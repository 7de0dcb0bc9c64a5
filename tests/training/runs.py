"""Tiny trainings, in processes that can be killed or be several."""

import csv
import os
import signal
import socket
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import load_file

from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.io.nifti import save_like
from medprism.methods import puir
from medprism.methods.puir import PUIRConfig
from medprism.models import NetworkConfig
from medprism.training.fit import Compute
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from medprism.training.pretrain import pretrain
from tests.data.scans import head

MODALITIES = ("t1n", "t2w", "t2f")
HOLES = (MODALITIES, ("t1n",), ("t2w", "t2f"), ("t2f",))
"""The scans of the training subjects; a validation subject with all follows."""

SMALL = {
    "network": NetworkConfig(width=4, levels=3),
    "patches": PatchConfig(size=(16, 16, 16), per_subject=2, batch=2, validation=1),
    "puir": PUIRConfig(embedding=16),
    "optimiser": OptimiserConfig(lr=1e-3, average=0.9),
    "compute": Compute("cpu"),
    "epochs": 4,
    "seed": 3,
}

# Forks of a process that has imported all this but computed nothing: a new one costs no time to import, and there is
# no thread that could hang in it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.runs", "tests.training.segmenting", "torch.utils.tensorboard"])


def make_cache(root: Path, holes=HOLES, validation=MODALITIES, shape=(30, 34, 28), margin=2) -> Path:
    """A prepared cohort of heads whose scans are functions of one anatomy.

    `holes` has the scans of each training subject, `validation` those of the one to choose by, if any.
    """
    subjects = []
    for number, present in enumerate((*holes, validation)):
        base, name = head(shape, seed=number), f"s{number}"
        inside = base.array > 0
        laws = {"t1n": base.array, "t2w": 600 - base.array, "t2f": 100 + base.array**2 / 500}
        for modality in present:
            scan = np.where(inside, laws[modality], 0).astype(np.float32)
            save_like(scan, base, root / f"{name}/{modality}.nii.gz", kind="image")
        if present:
            subjects.append(Subject(name, name, {m: f"{name}/{m}.nii.gz" for m in present}))
    training, others = tuple(subjects[: len(holes)]), tuple(subjects[len(holes) :])
    prepare(Cohort("tiny", MODALITIES, {}, {}, root, training, others, ()), out=root / "cache", margin=margin)
    return root / "cache"


def train(cache: Path, out: Path, **changes) -> Path:
    """Pre-train in this process."""
    torch.set_num_threads(1)
    return pretrain(data=cache, out=out, **{**SMALL, **changes})


def table(run: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rows(run: Path) -> list[dict[str, str]]:
    """The table of a run without what a clock says."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table(run)]


def assert_same(run: Path, other: Path) -> None:
    """The same losses and scores in every epoch, the same weights bit for bit, the same card."""
    assert rows(run) == rows(other)
    one, two = (load_file(folder / "model/model.safetensors") for folder in (run, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    cards = [(folder / "model/model.json").read_text() for folder in (run, other)]
    assert cards[0] == cards[1]


def leftovers(run: Path) -> list[str]:
    """What should not be in a finished run."""
    return [path.name for path in run.rglob("*") if path.name.endswith(".part") or path.name.startswith(".")]


def start(target, *args, **kwargs):
    """Begin a function of this module in another process."""
    process = CONTEXT.Process(target=target, args=args, kwargs=kwargs, daemon=True)
    process.start()
    return process


def finish(*processes, seconds: float = 120) -> list[int]:
    """Wait; the exit codes."""
    for process in processes:
        process.join(seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def train_worsening(cache: Path, out: Path, **changes) -> None:
    """Train with validation scores turned round, so that the first epoch stays the best."""
    score = puir.transfer_psnr
    puir.transfer_psnr = lambda *args: -score(*args)
    train(cache, out, **changes)


def die(objective: type, task, cache: Path, out: Path, at: int, name: str = "", **changes) -> None:
    """Do a training until the `at`-th event, then SIGKILL.

    Events are steps of the objective and the moments before a file gets its name; those whose place holds `name` are
    counted.
    """
    left = at

    def before(function, place):
        def wrapped(*args, **kwargs):
            nonlocal left
            left -= name in place(args)
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    os.replace = before(os.replace, lambda args: str(args[1]))
    objective.losses = before(objective.losses, lambda _: "step")
    task(cache, out, **changes)


def train_as(rank: int, world: int, port: int, task, cache: Path, out: Path, changes: dict) -> None:
    """Train as one of several processes, as torchrun starts them."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in names.items()})
    rank_zero_only.rank = rank  # Lightning reads it when it is imported, which was before the fork
    task(cache, out, **changes)


def train_together(world: int, cache: Path, out: Path, *, task=train, **changes) -> list[int]:
    """Train on several processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return finish(*(start(train_as, rank, world, port, task, cache, out, changes) for rank in range(world)))
