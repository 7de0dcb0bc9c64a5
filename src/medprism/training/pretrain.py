"""The verb `pretrain`: from a prepared cohort to a run folder with a model in it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from medprism.data.cache import Cache
from medprism.errors import expect
from medprism.methods.brainmvp import BrainMVPConfig
from medprism.methods.puir import PUIRConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.training.fit import Compute, Plan, Ship, begin, fit, where
from medprism.training.methods import method_of
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig, Patches
from medprism.training.run import Resume, plain, refuse_folder


def pretrain(
    *,
    data: Path,
    out: Path,
    puir: PUIRConfig = PUIRConfig(),  # noqa: B008 - frozen
    brainmvp: BrainMVPConfig | None = None,
    network: NetworkConfig = NetworkConfig(),  # noqa: B008
    patches: PatchConfig = PatchConfig(),  # noqa: B008
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    epochs: int = 1000,
    ship: Ship = "best",
    compute: Compute = Compute(),  # noqa: B008
    seed: int = 0,
    resume: Resume = "never",
    force: bool = False,
) -> Path:
    """Learn one representation per person from a prepared cohort, incomplete subjects included.

    Args:
        data: cache written by `medprism prepare`.
        out: run folder.
        puir: the objective: weights of its parts, rotations, corruption, schedule.
        brainmvp: another objective instead, which trains an encoder and templates, see --config brainmvp.
        network: backbone, prior and fusion.
        patches: what an epoch is made of.
        optimiser: AdamW and its schedule.
        epochs: length of the training.
        ship: which weights become the model: those with the `best` validation score, or the `last`.
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
    refuse_folder(out, resume=resume, force=force)
    cache = Cache.open(data)
    method = method_of(puir, brainmvp, network)
    config = {
        "data": str(data.resolve()),
        "split_hash": cache.split_hash,
        **method.settings,
        "patches": plain(patches),
        "optimiser": plain(optimiser),
        "epochs": epochs,
        "ship": ship,
        "precision": compute.precision,
        "seed": seed,
    }
    begin(seed)
    trainer = where(compute, unused=method.idle)
    world = trainer["devices"] * trainer["num_nodes"]
    loaders = Patches(cache, patches, seed, world)
    training = method.begin(cache, patches, epochs, seed)
    training.objective.check_batch(patches.batch * world)
    plan = Plan(
        title="pre-training",
        network=training.network,
        objective=training.objective,
        loaders=loaders,
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        config=config,
        card=lambda shipped, score: training.card(cache, cast(Prism, shipped), config, score),
        trainer=trainer,
        compute=compute,
        beside=training.beside,
        callbacks=training.callbacks(out),
    )
    return fit(plan, out, resume=resume, force=force)
