"""The verb `pretrain`: from a prepared cohort to a run folder with a model in it."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from medprism.data.cache import Cache
from medprism.errors import UserError, expect
from medprism.methods.puir import PUIR, PUIRConfig
from medprism.models.folder import person_digests, save_model
from medprism.models.prism import NetworkConfig, Prism
from medprism.training.callbacks import Checkpoints, MetricsTable, ProgressBar
from medprism.training.memory import keep_freed_memory
from medprism.training.module import OptimiserConfig, Pretraining
from medprism.training.patches import PatchConfig, Patches
from medprism.training.run import Resume, RunFolder, plain

logger = logging.getLogger(__name__)

CITATION = (
    "Tan et al., Towards a Universal 3D Medical Multi-modality Generalization via Learning Personalized Invariant "
    "Representation, ICCV 2025, https://arxiv.org/abs/2411.06106"
)


@dataclass(frozen=True)
class Compute:
    """Where and how it runs.

    Attributes:
        device: `auto` takes a GPU if there is one.
        devices: processes on this machine; under torchrun or SLURM their number is taken from there.
        precision: `bf16` is automatic mixed precision, on GPUs and on CPUs with bf16 units.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    precision: Literal["32", "bf16"] = "32"


def pretrain(
    *,
    data: Path,
    out: Path,
    puir: PUIRConfig = PUIRConfig(),  # noqa: B008 - frozen
    network: NetworkConfig = NetworkConfig(),  # noqa: B008
    patches: PatchConfig = PatchConfig(),  # noqa: B008
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    epochs: int = 1000,
    compute: Compute = Compute(),
    seed: int = 0,
    resume: Resume = "never",
    force: bool = False,
) -> Path:
    """Learn one representation per person from a prepared cohort, incomplete subjects included.

    Args:
        data: cache written by `medprism prepare`.
        out: run folder.
        puir: the objective: weights of its parts, rotations, corruption, schedule.
        network: backbone, prior and fusion.
        patches: what an epoch is made of.
        optimiser: AdamW and its schedule.
        epochs: length of the training.
        compute: device, processes, precision.
        seed: of all random draws.
        resume: `auto` goes on with a run of the same configuration, or begins one.
        force: delete a run that is in the way.

    Returns:
        The run folder.

    Raises:
        UserError: data, configuration or folder do not fit together.
    """
    expect(epochs >= 1, "1 or more", "epochs", epochs)
    cache = Cache.open(data)
    config = {
        "data": str(data),
        "split_hash": cache.split_hash,
        "puir": plain(puir),
        "network": plain(network),
        "patches": plain(patches),
        "optimiser": plain(optimiser),
        "epochs": epochs,
        "precision": compute.precision,
        "seed": seed,
    }
    torch.set_flush_denormal(True)  # numbers near zero make CPUs ten times slower and mean nothing here
    keep_freed_memory()
    trainer_kwargs = _trainer_kwargs(compute, puir)
    world = trainer_kwargs["devices"] * trainer_kwargs["num_nodes"]
    loaders = Patches(cache, patches, seed, world)
    L.seed_everything(seed, workers=True, verbose=False)
    model = Prism(network, len(cache.modalities), patches.size)
    objective = PUIR(puir, model.backbone.channels[-1], cache.modalities, seed)
    _check(puir, network, patches, world, objective)
    steps = loaders.steps * epochs
    module = Pretraining(model, objective, optimiser, steps)
    run = RunFolder(out)

    def write_model(score: float) -> None:
        save_model(run.model, module.shipped, card(cache, module.shipped, config, score))

    checkpoints = Checkpoints(run, write_model)
    callbacks = [MetricsTable(out / "metrics.csv"), checkpoints, ProgressBar(steps, "pre-training")]
    with warnings.catch_warnings():
        _quiet()
        trainer = _trainer(trainer_kwargs, out, callbacks, epochs, log_every=loaders.steps)
        if trainer.is_global_zero:  # of several processes one opens the folder
            RunFolder.open(out, config, resume=resume, force=force)
        # Only with `auto` does anything count that is there: the others may look before the first has deleted it.
        if resume == "auto" and run.done.exists():
            logger.info("%s is complete", out)
            return out
        going_on = resume == "auto" and run.last.exists()
        trainer.fit(module, loaders, ckpt_path=str(run.last) if going_on else None)
    if trainer.is_global_zero:
        # Anew from the best weights: a kill while the folder was being replaced leaves no trace.
        best = torch.load(run.best, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        write_model(checkpoints.best)
        run.done.write_text("")
    return out


def _trainer(
    where: dict[str, Any], out: Path, callbacks: list[L.Callback], epochs: int, *, log_every: int
) -> L.Trainer:
    """Lightning's trainer with its own checkpoints, bars and samplers off: the run folder has ours."""
    return L.Trainer(
        **where,
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


def fast_precision() -> Literal["32", "bf16"]:
    """bf16 where this machine computes in it, otherwise float32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "32"


def card(cache: Cache, network: Prism, config: dict[str, Any], score: float) -> dict[str, Any]:
    """What model.json says beside what `save_model` adds.

    Args:
        cache: what it was trained on.
        network: the network.
        config: the run's resolved configuration.
        score: validation PSNR in dB.
    """
    return {
        "task": "transfer",
        "architecture": network.architecture,
        "modalities": list(cache.modalities),
        "normalisers": {name: cache.recipe.normalisers[name].to_dict() for name in cache.modalities},
        "typical_scales": {name: scale.to_dict() for name, scale in cache.typical_scales.items()},
        "spacing": cache.recipe.spacing,
        "reference": cache.recipe.reference,
        "margin": cache.recipe.margin,
        "patch_size": list(network.patch_size),
        "size_divisor": network.divisor,
        "encoder_keys": [name for name, _ in network.named_parameters() if _in_encoder(name)],
        "cohort": cache.name,
        "split_hash": cache.split_hash,
        "training_persons": person_digests(
            entry.person for split in ("training", "validation") for entry in cache.subjects(split)
        ),
        "validation_psnr": score,
        "config": config,
        "citation": CITATION,
    }


def _in_encoder(name: str) -> bool:
    parts = ("stem", "down", "blocks", "net.swinViT", "net.encoder")
    return name.startswith(tuple(f"backbone.{part}" for part in parts))


def _check(puir: PUIRConfig, network: NetworkConfig, patches: PatchConfig, world: int, objective: PUIR) -> None:
    """Refuse what would fail, or mean nothing, in the first step."""
    objective.check_batch(patches.batch * world)
    size = patches.size
    if (puir.rotations == "z" and size[0] != size[1]) or (puir.rotations == "cube" and len(set(size)) > 1):
        need = "equal sides in X and Y" if puir.rotations == "z" else "three equal sides"
        raise UserError(f"expected a patch with {need} to rotate, got {size}; change patches.size or puir.rotations")
    if network.backbone == "swinunetr" and max(size) < 64:
        raise UserError(f"expected a side of 64 voxels or more to train swinunetr, got {size}; change patches.size")


def _trainer_kwargs(compute: Compute, puir: PUIRConfig) -> dict[str, Any]:
    accelerator = compute.device
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    launched = "LOCAL_WORLD_SIZE" in os.environ  # by torchrun
    devices = int(os.environ["LOCAL_WORLD_SIZE"]) if launched else compute.devices
    if devices < 1:
        raise UserError(f"expected at least 1 process, got compute.devices={devices}; give 1 or more")
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        found = torch.cuda.device_count()
        raise UserError(f"expected {devices} CUDA device(s), got {found}; give --compute.device cpu or fewer devices")
    nodes = int(os.environ["WORLD_SIZE"]) // devices if launched else int(os.environ.get("SLURM_NNODES", 1))
    # Without decomposition nothing trains the decoder; else every parameter has a gradient in every step.
    strategy = "ddp" if puir.decomposition else "ddp_find_unused_parameters_true"
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": nodes,
        "strategy": strategy if devices * nodes > 1 else "auto",
        "precision": "bf16-mixed" if compute.precision == "bf16" else "32-true",
    }


def _quiet() -> None:
    """Lightning's hints about choices that are made here on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*deprecated.*")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
