"""What `pretrain` can train: an objective and a network that fits it, under the names that the verb gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning as L

from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.methods.brainmvp import BrainMVP, BrainMVPConfig
from medprism.methods.puir import PUIR, PUIRConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.templates import FOLDER
from medprism.training.card import representation_card, transfer_card
from medprism.training.module import Objective
from medprism.training.patches import PatchConfig, check_size
from medprism.training.run import plain
from medprism.training.snapshots import PICTURE, TemplateSnapshots
from medprism.training.templates import begun


class Checked(Objective, Protocol):
    """An objective that says which batches it cannot use."""

    def check_batch(self, size: int) -> None:
        """Refuse a batch of `size` sub-volumes over all processes."""
        ...


@dataclass(frozen=True)
class Begun:
    """A training before its first step.

    Attributes:
        network: what is trained and shipped.
        objective: what for.
        card: what model.json says, of cache, shipped network, configuration and validation score.
        beside: writes what belongs to the model into its folder.
        callbacks: of the run folder -> what happens besides along the training.
    """

    network: Prism
    objective: Checked
    card: Callable[[Cache, Prism, dict[str, Any], float], dict[str, Any]]
    beside: Callable[[Path], object] | None = None
    callbacks: Callable[[Path], list[L.Callback]] = lambda _: []


@dataclass(frozen=True)
class Method:
    """An objective's configuration, and what becomes of it.

    Attributes:
        settings: what the run's configuration says of it, plain JSON.
        begin: cache, patches, number of epochs, seed -> network and objective, fresh.
        idle: whether some parameters have no gradient in some steps.
    """

    settings: dict[str, Any]
    begin: Callable[[Cache, PatchConfig, int, int], Begun]
    idle: bool


def method_of(puir: PUIRConfig, brainmvp: BrainMVPConfig | None, network: NetworkConfig) -> Method:
    """The objective that is chosen: BrainMVP if its options are given, else PUIR.

    Raises:
        UserError: options of both.
    """
    if brainmvp is None:
        return of_puir(puir, network)
    if puir != PUIRConfig():
        raise UserError("expected no options of PUIR (puir) with brainmvp; leave one of them out")
    return of_brainmvp(brainmvp, network)


def of_puir(config: PUIRConfig, network: NetworkConfig) -> Method:
    """PUIR, with a prism that makes all modalities."""

    def begin(cache: Cache, patches: PatchConfig, epochs: int, seed: int) -> Begun:
        model = Prism(network, len(cache.modalities), patches.size)
        objective = PUIR(config, model.backbone.channels[-1], cache.modalities, seed)
        check_size(model, patches.size)
        _check_turns(config, patches.size)
        return Begun(model, objective, transfer_card)

    # Without decomposition nothing trains the decoder; else every parameter has a gradient in every step.
    return Method({"puir": plain(config), "network": plain(network)}, begin, idle=not config.decomposition)


def of_brainmvp(config: BrainMVPConfig, network: NetworkConfig) -> Method:
    """BrainMVP, with a prism that only encodes, and templates of all modalities.

    Raises:
        UserError: the network has a prior, which nothing would train.
    """
    if network.prior != "none":
        raise UserError(
            f"expected a network without prior with brainmvp, got {network.prior}; give --network.prior none"
        )

    def begin(cache: Cache, patches: PatchConfig, epochs: int, seed: int) -> Begun:
        model = Prism(network, len(cache.modalities), patches.size, outputs=0)
        check_size(model, patches.size)
        config.mask.check_size(patches.size, "brainmvp.mask")
        templates = begun(config.templates, cache, patches.size, seed)
        objective = BrainMVP(config, model, templates, cache.modalities, epochs, seed)
        return Begun(
            model,
            objective,
            lambda *about: {**representation_card(*about), "templates": templates.identity},
            lambda folder: templates.save(folder / FOLDER, force=True),
            lambda run: [TemplateSnapshots(run / PICTURE, templates, epochs)],
        )

    # The stem that leads to the finest features of some backbones is for decoders alone; a projection and, with single
    # scans, templates wait for their time.
    return Method({"brainmvp": plain(config), "network": plain(network)}, begin, idle=True)


def _check_turns(config: PUIRConfig, size: tuple[int, int, int]) -> None:
    if (config.rotations == "z" and size[0] != size[1]) or (config.rotations == "cube" and len(set(size)) > 1):
        need = "equal sides in X and Y" if config.rotations == "z" else "three equal sides"
        raise UserError(f"expected a patch with {need} to rotate, got {size}; change patches.size or puir.rotations")
