"""How many processes train: as asked for, or as a launcher started them; and what it looks like when one is lost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed

from medprism.errors import UserError

PATIENCE = timedelta(minutes=10)
"""For the other processes, in any exchange with them: much longer than a validation or a checkpoint takes, and the
bound on how long a training stands still where a machine vanishes without a word (a pulled cable; a process that dies
closes its connections, which is seen at once). Gloo's own is 30 minutes."""

INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which nothing is launched, as Lightning has it


def processes(devices: int, nodes: int, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Processes on each node, and nodes.

    Args:
        devices: asked for on each node; 1 is whatever the launcher started.
        nodes: likewise.
        environment: where torchrun and SLURM say what they started.

    Raises:
        UserError: what was asked for is not what was started, nodes have different numbers of processes, or there is
            no launcher for several nodes.
    """
    for name, value, what in (("devices", devices, "process"), ("nodes", nodes, "node")):
        if value < 1:
            raise UserError(f"expected at least 1 {what}, got compute.{name}={value}; give 1 or more")
    started = _by_torchrun(environment) or _by_slurm(environment)
    if started is None:
        if nodes > 1:
            raise UserError(
                f"expected torchrun or srun to start this on each of {nodes} nodes, got one process on its own; see "
                "docs/scale.md for the commands"
            )
        return devices, nodes
    for name, asked, there in (("devices", devices, started[0]), ("nodes", nodes, started[1])):
        if asked not in (1, there):
            raise UserError(
                f"expected compute.{name}={there} as the launcher started it ({started[0]} processes on each of "
                f"{started[1]} nodes), got {asked}; leave it out, or start as many"
            )
    return started


def _by_torchrun(environment: Mapping[str, str]) -> tuple[int, int] | None:
    if "LOCAL_WORLD_SIZE" not in environment:
        return None
    local, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
    if world % local:
        raise UserError(
            f"expected as many processes on each node, got WORLD_SIZE={world} with {local} on this one; give all nodes "
            "the same --nproc-per-node"
        )
    return local, world // local


def _by_slurm(environment: Mapping[str, str]) -> tuple[int, int] | None:
    if "SLURM_NTASKS" not in environment or environment.get("SLURM_JOB_NAME") in INTERACTIVE:
        return None
    tasks, nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", 1))
    if tasks > 1 and "SLURM_STEP_ID" not in environment:
        raise UserError(
            f"expected srun to start {tasks} tasks, got one process of the batch script; put srun before it"
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        raise UserError(f"expected --ntasks-per-node of the job, got --ntasks {tasks} alone; give it instead")
    if tasks % nodes:
        raise UserError(
            f"expected as many tasks on each node, got {tasks} on {nodes} nodes; give --ntasks-per-node alone"
        )
    return tasks // nodes, nodes


def lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone or does not answer."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
