"""Fine-tuning for the transfer from some modalities to others: from a cache to a run folder with a model in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from medprism.data.cache import Cache, Entry
from medprism.data.modalities import canonical
from medprism.errors import UserError, expect
from medprism.methods.transfer import Transfer, TransferConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.training.card import common
from medprism.training.fit import Compute, Plan, Ship, begin, fit, where
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig, Patches, check_size
from medprism.training.run import Resume, plain, refuse_folder
from medprism.training.start import Part, Start

logger = logging.getLogger(__name__)


def train_transfer(
    *,
    data: Path,
    out: Path,
    source: Sequence[str],
    target: Sequence[str],
    init: Path | None,
    part: Part,
    objective: TransferConfig,
    network: NetworkConfig,
    patches: PatchConfig,
    optimiser: OptimiserConfig,
    epochs: int,
    ship: Ship,
    compute: Compute,
    seed: int,
    resume: Resume,
    force: bool,
) -> Path:
    """Train a prism that makes the targets of the sources; the arguments are those of `medprism finetune transfer`.

    Raises:
        UserError: data, names, start, configuration or folder do not fit together.
    """
    expect(epochs >= 1, "1 or more", "epochs", epochs)
    expect(patches.intensity == 0, "0 in a transfer, which learns intensities,", "patches.intensity", patches.intensity)
    refuse_folder(out, resume=resume, force=force)
    cache = Cache.open(data)
    sources, targets = chosen(source, target, cache)
    start = Start.of(init, part, network, cache, other_modalities=True)
    training = useful(cache, sources, targets)
    config: dict[str, Any] = {
        "task": "transfer",
        "data": str(data.resolve()),
        "split_hash": cache.split_hash,
        "source": list(sources),
        "target": list(targets),
        "init": start.identity,
        "part": part if init is not None else None,
        "objective": plain(objective),
        "network": plain(start.network),
        "patches": plain(patches),
        "optimiser": plain(optimiser),
        "epochs": epochs,
        "ship": ship,
        "precision": compute.precision,
        "seed": seed,
    }
    begin(seed)
    trainer = where(compute)
    model = Prism(start.network, len(cache.modalities), start.patch_size or patches.size)
    check_size(model, patches.size)
    start.fill_encoder(model, cache.modalities)

    def card(shipped: Prism, score: float) -> dict[str, Any]:
        return {
            "task": "transfer",
            **common(cache, shipped, shipped, config, seen=start.seen, training=training),
            "patch_size": list(patches.size),
            "sources": list(sources),
            "makes": list(targets),
            "initialised_from": start.identity,
            "validation_psnr": score,
        }

    plan = Plan(
        title="fine-tuning",
        network=model,
        objective=Transfer(objective, cache.modalities, sources, targets),
        loaders=Patches(cache, patches, seed, trainer["devices"] * trainer["num_nodes"], training),
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        config=config,
        card=lambda shipped, score: card(cast(Prism, shipped), score),
        trainer=trainer,
        compute=compute,
    )
    return fit(plan, out, resume=resume, force=force)


def chosen(source: Sequence[str], target: Sequence[str], cache: Cache) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sources and targets by canonical name, in the cache's order.

    Args:
        source: any aliases.
        target: likewise.
        cache: what is trained on.

    Raises:
        UserError: none, names that the cache does not have, or one that is both.
    """
    names = []
    for what, given in (("source", source), ("target", target)):
        own = {canonical(name) for name in given}
        if not own or own - set(cache.modalities):
            got = ", ".join(sorted(own - set(cache.modalities))) or "none"
            raise UserError(f"expected --{what} among {', '.join(cache.modalities)} of {cache.name}, got {got}")
        names.append(tuple(name for name in cache.modalities if name in own))
    if both := set(names[0]) & set(names[1]):
        raise UserError(f"expected targets that are not sources, got {', '.join(sorted(both))} as both; leave it out")
    return names[0], names[1]


def useful(cache: Cache, sources: Sequence[str], targets: Sequence[str]) -> list[Entry]:
    """The training subjects that have a source and a target; how many have not is told.

    Raises:
        UserError: nobody has.
    """
    entries = cache.subjects("training")
    found = []
    for entry in entries:
        own = {name for name, here in zip(cache.modalities, entry.present, strict=True) if here}
        if own & set(sources) and own & set(targets):
            found.append(entry)
    if entries and not found:
        raise UserError(
            f"expected training subjects of {cache.name} with {' or '.join(sources)} and {' or '.join(targets)}, "
            "got none; check the cohort file"
        )
    if len(found) < len(entries):
        logger.info("%d of %d training subjects lack source or target", len(entries) - len(found), len(entries))
    return found
