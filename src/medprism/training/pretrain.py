"""The verb `pretrain`: from a prepared cohort to a run folder with a model in it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from medprism.data.cache import Cache
from medprism.errors import UserError, expect
from medprism.methods.puir import PUIR, PUIRConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.training.card import transfer_card
from medprism.training.fit import Compute, Plan, Ship, begin, fit, where
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig, Patches, check_size
from medprism.training.run import Resume, plain


def pretrain(
    *,
    data: Path,
    out: Path,
    puir: PUIRConfig = PUIRConfig(),  # noqa: B008 - frozen
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
    cache = Cache.open(data)
    config = {
        "data": str(data.resolve()),
        "split_hash": cache.split_hash,
        "puir": plain(puir),
        "network": plain(network),
        "patches": plain(patches),
        "optimiser": plain(optimiser),
        "epochs": epochs,
        "ship": ship,
        "precision": compute.precision,
        "seed": seed,
    }
    begin(seed)
    # Without decomposition nothing trains the decoder; else every parameter has a gradient in every step.
    trainer = where(compute, unused=not puir.decomposition)
    world = trainer["devices"] * trainer["num_nodes"]
    model = Prism(network, len(cache.modalities), patches.size)
    objective = PUIR(puir, model.backbone.channels[-1], cache.modalities, seed)
    check_size(model, patches.size)
    _check(puir, patches, world, objective)
    plan = Plan(
        title="pre-training",
        network=model,
        objective=objective,
        loaders=Patches(cache, patches, seed, world),
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        config=config,
        card=lambda shipped, score: transfer_card(cache, cast(Prism, shipped), config, score),
        trainer=trainer,
    )
    return fit(plan, out, resume=resume, force=force)


def _check(puir: PUIRConfig, patches: PatchConfig, world: int, objective: PUIR) -> None:
    """Refuse what would fail, or mean nothing, in the first step."""
    objective.check_batch(patches.batch * world)
    size = patches.size
    if (puir.rotations == "z" and size[0] != size[1]) or (puir.rotations == "cube" and len(set(size)) > 1):
        need = "equal sides in X and Y" if puir.rotations == "z" else "three equal sides"
        raise UserError(f"expected a patch with {need} to rotate, got {size}; change patches.size or puir.rotations")
