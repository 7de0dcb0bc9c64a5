"""The loop that all trainings share: folder, trainer, checkpoints, resume, the model at the end."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from medprism.errors import UserError
from medprism.models.folder import save_model
from medprism.models.recompute import spare_memory
from medprism.training.callbacks import Checkpoints, MetricsTable, ProgressBar
from medprism.training.memory import keep_freed_memory
from medprism.training.module import Objective, OptimiserConfig, Training
from medprism.training.patches import Patches
from medprism.training.processes import PATIENCE, lost, processes
from medprism.training.run import Resume, RunFolder

logger = logging.getLogger(__name__)


Ship = Literal["best", "last"]
"""Which weights become the model: those with the best validation score, or the last. Where the validation split has a
few subjects only, the best score is a draw of luck; at the end of a decaying rate, with averaged weights, the last are
the safer choice."""


@dataclass(frozen=True)
class Compute:
    """Where and how it runs.

    Attributes:
        device: `auto` takes a GPU if there is one.
        devices: processes on this machine, each with a GPU of its own if it is on GPUs; under torchrun or SLURM their
            number is taken from there.
        nodes: machines; more than one need torchrun or srun, from which their number is taken.
        precision: `bf16` is automatic mixed precision, on GPUs and on CPUs with bf16 units.
        checkpointing: hold few of the backbone's maps at full resolution for the backward pass and compute the others
            again: the same training, a U-Net's step in a third less memory and a tenth more time. UniFormer with batch
            norm gains nothing.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    nodes: int = 1
    precision: Literal["32", "bf16"] = "32"
    checkpointing: bool = False


@dataclass(frozen=True)
class Plan:
    """A training, ready to run.

    Attributes:
        title: of the progress bar.
        network: what is trained and shipped; fresh or initialised.
        objective: what for.
        loaders: the patches.
        optimiser: its settings.
        epochs: length.
        ship: which weights become the model, see `Ship`.
        config: the resolved configuration, plain JSON-like; a run is resumed only by the same.
        card: what model.json says, of the shipped network and its validation score.
        trainer: what `where` gives.
        compute: how it runs; it does not change what is learned, so a resumed run may have other values.
        beside: writes what belongs to the model besides its weights and card into its folder; called after each save.
        callbacks: what happens besides along the training; before the checkpoints, which hold their states.
    """

    title: str
    network: nn.Module
    objective: Objective
    loaders: Patches
    optimiser: OptimiserConfig
    epochs: int
    ship: Ship
    config: dict[str, Any]
    card: Callable[[nn.Module, float], dict[str, Any]]
    trainer: dict[str, Any]
    compute: Compute
    beside: Callable[[Path], object] | None = None
    callbacks: Sequence[L.Callback] = ()


def begin(seed: int) -> None:
    """Before a network is made: global seed and memory; all later draws are functions of their own keys."""
    torch.set_flush_denormal(True)  # numbers near zero make CPUs ten times slower and mean nothing here
    keep_freed_memory()
    L.seed_everything(seed, workers=True, verbose=False)


def fit(plan: Plan, out: Path, *, resume: Resume, force: bool) -> Path:
    """Train, or go on with a training, and leave the best model in the run folder.

    Args:
        plan: the training.
        out: run folder.
        resume: `auto` goes on with a run of the same configuration, or begins one.
        force: delete a run that is in the way.

    Returns:
        The run folder.

    Raises:
        UserError: the folder holds something else, the run was begun by another number of processes, one of them is
            lost, or the network cannot spare memory.
    """
    if plan.compute.checkpointing:
        spare_memory(plan.network)
    steps = plan.loaders.steps * plan.epochs
    module = Training(plan.network, plan.objective, plan.optimiser, steps)
    run, metric, unit = RunFolder(out), plan.objective.metric, plan.objective.unit

    def write_model(score: float) -> None:
        save_model(run.model, module.shipped, plan.card(module.shipped, score))
        if plan.beside is not None:
            plan.beside(run.model)

    world = plan.trainer["devices"] * plan.trainer["num_nodes"]
    checkpoints = Checkpoints(run, metric, write_model, world)
    bar = ProgressBar(steps, plan.title, metric, unit)
    with warnings.catch_warnings():
        _quiet()
        trainer = _trainer(
            plan.trainer,
            out,
            [*plan.callbacks, MetricsTable(out / "metrics.csv"), checkpoints, bar],
            plan.epochs,
            log_every=plan.loaders.steps,
        )
        if trainer.is_global_zero:  # of several processes one opens the folder
            RunFolder.open(out, plan.config, resume=resume, force=force)
        # Only with `auto` does anything count that is there: the others may look before the first has deleted it.
        if resume == "auto" and run.done.exists():
            logger.info("%s is complete", out)
            return out
        going_on = resume == "auto" and run.last.exists()
        try:
            trainer.fit(module, plan.loaders, ckpt_path=str(run.last) if going_on else None)
        except RuntimeError as error:
            if world == 1 or not lost(error):
                raise
            said = str(error).partition("\n")[0]
            raise UserError(
                f"expected {world} processes to go on, got no answer from another ({said}); see what that one said, "
                "then give the same command with --resume auto"
            ) from error
    if trainer.is_global_zero:
        # Anew from the checkpoint: a kill while the folder was being replaced leaves no trace.
        chosen = run.best if plan.ship == "best" else run.last
        module.load_state_dict(torch.load(chosen, map_location="cpu", weights_only=True)["state_dict"])
        write_model(checkpoints.best if plan.ship == "best" else checkpoints.latest)
        run.done.write_text("")
    return out


def fast_precision() -> Literal["32", "bf16"]:
    """bf16 where this machine computes in it, otherwise float32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "32"


def _trainer(
    place: dict[str, Any], out: Path, callbacks: list[L.Callback], epochs: int, *, log_every: int
) -> L.Trainer:
    """Lightning's trainer with its own checkpoints, bars and samplers off: the run folder has ours."""
    return L.Trainer(
        **place,
        max_epochs=epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(str(out), name="tensorboard", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=log_every,
    )


def where(compute: Compute, *, unused: bool = False) -> dict[str, Any]:
    """Lightning's arguments for where it runs.

    Args:
        compute: what is wanted.
        unused: whether some parameters have no gradient in some steps.

    Raises:
        UserError: there are not as many devices, or they are not what the launcher started.
    """
    accelerator = compute.device
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    devices, nodes = processes(compute.devices, compute.nodes)
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        found = torch.cuda.device_count()
        raise UserError(f"expected {devices} CUDA device(s), got {found}; give --compute.device cpu or fewer devices")
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": nodes,
        "strategy": DDPStrategy(find_unused_parameters=unused, timeout=PATIENCE) if devices * nodes > 1 else "auto",
        "precision": "bf16-mixed" if compute.precision == "bf16" else "32-true",
    }


def _quiet() -> None:
    """Lightning's hints about choices that are made here on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*deprecated.*")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
