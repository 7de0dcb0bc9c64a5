"""Who decides how many processes there are, and what is refused."""

import pytest

from medprism.errors import UserError
from medprism.training.callbacks import Checkpoints
from medprism.training.processes import processes
from medprism.training.run import RunFolder

TORCHRUN = {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
SRUN = {
    "SLURM_NTASKS": "6",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_NAME": "train",
}


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "found"),
    [
        (1, 1, {}, (1, 1)),
        (2, 1, {}, (2, 1)),
        (1, 1, TORCHRUN, (4, 2)),
        (4, 2, TORCHRUN, (4, 2)),
        (1, 1, SRUN, (3, 2)),
        (3, 1, SRUN, (3, 2)),
        (2, 1, {**SRUN, "SLURM_JOB_NAME": "bash"}, (2, 1)),
        (1, 1, {"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, (1, 1)),  # a batch script of one task
    ],
)
def test_the_launcher_decides(devices, nodes, environment, found):
    assert processes(devices, nodes, environment) == found


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "told"),
    [
        (0, 1, {}, "at least 1 process, got compute.devices=0"),
        (1, 0, {}, "at least 1 node, got compute.nodes=0"),
        (2, 2, {}, "torchrun or srun to start this on each of 2 nodes, got one process on its own"),
        (2, 1, TORCHRUN, "compute.devices=4 as the launcher started it .4 processes on each of 2 nodes., got 2"),
        (4, 3, TORCHRUN, "compute.nodes=2 as the launcher .* got 3"),
        (1, 1, {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "3"}, "as many processes on each node, got WORLD_SIZE=3 with 2"),
        (2, 1, SRUN, "compute.devices=3 as the launcher"),
        (1, 1, {**SRUN, "SLURM_NTASKS": "5"}, "as many tasks on each node, got 5 on 2 nodes"),
        (1, 1, {k: v for k, v in SRUN.items() if k != "SLURM_STEP_ID"}, "put srun before it"),
        (1, 1, {k: v for k, v in SRUN.items() if k != "SLURM_NTASKS_PER_NODE"}, "expected --ntasks-per-node"),
    ],
)
def test_what_does_not_fit_is_refused(devices, nodes, environment, told):
    with pytest.raises(UserError, match=told):
        processes(devices, nodes, environment)


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path):
    begun = Checkpoints(RunFolder(tmp_path), "psnr", lambda score: None, 2).state_dict()
    same = Checkpoints(RunFolder(tmp_path), "psnr", lambda score: None, 2)
    same.load_state_dict(begun)
    same.load_state_dict({"best": 1.0, "latest": 1.0})  # of a version that did not note it
    with pytest.raises(UserError, match=r"expected 2 processes .* began with, got 4; start as many"):
        Checkpoints(RunFolder(tmp_path), "psnr", lambda score: None, 4).load_state_dict(begun)
