"""Where fine-tuning starts from: a trained model, its encoder alone, or nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor

from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.models.classifier import Classifier
from medprism.models.folder import load_card, load_weights, person_digests, sound_weights
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.segmenter import Segmenter
from medprism.training.card import encoder_names
from medprism.training.grow import grown

logger = logging.getLogger(__name__)

Part = Literal["model", "encoder"]


@dataclass(frozen=True)
class Start:
    """A start.

    Attributes:
        network: shape of the prism.
        patch_size: of the training that it starts from, which fixes the prior's size; None for a start from nothing.
        state: weights by name in the prism; None for a start from nothing.
        part: which of them are taken.
        seen: digests of the persons that the weights come from.
        identity: sha256 of the weights, for the record.
        known: the modalities that they were trained with.
    """

    network: NetworkConfig
    patch_size: tuple[int, int, int] | None = None
    state: dict[str, Tensor] | None = None
    part: Part = "model"
    seen: tuple[str, ...] = ()
    identity: str | None = None
    known: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, init: Path | None, part: Part, network: NetworkConfig, cache: Cache, *, other_modalities: bool = False
    ) -> Start:
        """The start that is asked for.

        Args:
            init: model or run folder; None to start from nothing.
            part: `model`: encoder, prior and decoder, so far as the model has them; `encoder`: it alone, in a plain
                network without prior.
            network: shape if it starts from nothing.
            cache: what is trained on.
            other_modalities: whether the cache may have others than the model, besides some that it knows.

        Raises:
            UserError: the model has another shape, other modalities or another recipe than asked for or prepared, or
                has seen a person of the test split.
        """
        if init is None:
            if part != "model":
                raise UserError(f"expected --init, a model to take the {part} of, got none; or leave --part out")
            return cls(network)
        card = load_card(init)
        check_recipe(card, cache, other_modalities=other_modalities)
        refuse_test_persons(card, cache)
        shape, patch_size = shape_of(card)
        if network not in (NetworkConfig(), shape):
            ours, theirs, usual = (asdict(each) for each in (network, shape, NetworkConfig()))
            other = [name for name in ours if ours[name] != theirs[name]]
            given = [name for name in other if ours[name] != usual[name]]  # what is as usual was hardly asked for
            told = ", ".join(f"{name} {ours[name]} instead of {theirs[name]}" for name in given or other)
            raise UserError(f"expected the shape of {init}, got another by --network: {told}; leave --network out")
        state = load_file(sound_weights(init))
        state = {name.removeprefix("prism."): tensor for name, tensor in state.items()}
        part = "encoder" if card.get("task") == "representation" else part  # all that such a model is
        shape = replace(shape, prior="none") if part == "encoder" else shape
        seen, known = tuple(card.get("training_persons", ())), tuple(card["modalities"])
        return cls(shape, patch_size, state, part, seen, card["sha256"], known)

    def fill(self, network: Segmenter | Classifier) -> None:
        """Put the weights into a network, but for its last layer.

        Raises:
            UserError: less than 95 % of the part fits.
        """
        if self.state is None:
            return
        if self.part == "encoder":
            wanted = encoder_names(network)
        else:
            heads = ("prism.backbone.head.", "prism.backbone.net.out.")
            own = (name for name in network.state_dict() if name.startswith("prism."))
            wanted = [name for name in own if not name.startswith(heads)]
        state = {f"prism.{name}": tensor for name, tensor in self.state.items()}
        state = {name: tensor for name, tensor in state.items() if name in set(wanted)}
        logger.info("%s: %s", self.part, load_weights(network, state, prefix=tuple(wanted)))

    def fill_encoder(self, network: Prism, modalities: Sequence[str]) -> None:
        """Put encoder and prior into a prism for other modalities, see `grown`; its decoder stays new.

        Raises:
            UserError: less than 95 % of them fits.
        """
        if self.state is None:
            return
        parts = ("prior.", *encoder_names(network))
        wanted = tuple(name for name in network.state_dict() if name.startswith(parts))
        state = grown(self.state, network, self.known, modalities)
        state = {name: tensor for name, tensor in state.items() if name in wanted}
        logger.info("%s: %s", self.part, load_weights(network, state, prefix=wanted))


def shape_of(card: dict[str, Any]) -> tuple[NetworkConfig, tuple[int, int, int]]:
    """Shape of a model's prism, and the patch size that it was made for.

    Raises:
        UserError: the card is of another version.
    """
    try:
        x, y, z = card["architecture"]["patch_size"]
        return NetworkConfig(**card["architecture"]["network"]), (x, y, z)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"expected a model of this version to start from, got one of medprism {card.get('version')} ({error}); "
            "train it again"
        ) from error


def check_recipe(card: dict[str, Any], cache: Cache, *, other_modalities: bool = False) -> None:
    """Refuse a cache that was prepared in another way than a model's scans.

    Args:
        card: of the model.
        cache: what is trained on.
        other_modalities: whether it may have others than the model; those that both have are compared.

    Raises:
        UserError: other modalities, normalisers or spacing.
    """
    common = [name for name in cache.modalities if name in card["modalities"]]
    if other_modalities and not common:
        raise UserError(
            f"expected a cache with some of {' '.join(card['modalities'])}, which the model knows, got "
            f"{' '.join(cache.modalities)}; start from another model, or from nothing without --init"
        )
    if not other_modalities and list(card["modalities"]) != list(cache.modalities):
        raise UserError(
            f"expected a cache of {' '.join(card['modalities'])} as the model was trained on, got "
            f"{' '.join(cache.modalities)}; prepare the cohort with these modalities in this order"
        )
    recipes = {name: _plain(cache.recipe.normalisers[name].to_dict()) for name in common}
    if differing := [name for name, recipe in recipes.items() if _plain(card["normalisers"][name]) != recipe]:
        raise UserError(
            f"expected intensities normalised as in training, got another normaliser for {' '.join(differing)}; "
            "prepare the cohort with the model's recipe"
        )
    if card["spacing"] != _plain(cache.recipe.spacing):
        raise UserError(
            f"expected voxels of {card['spacing']} mm as the model was trained on, got {_plain(cache.recipe.spacing)}; "
            "prepare the cohort with the model's spacing"
        )


def refuse_test_persons(card: dict[str, Any], cache: Cache) -> None:
    """Refuse weights that come from a person of the test split: its results would not be a test.

    Raises:
        UserError: there is one.
    """
    test = {person_digests([entry.person])[0]: entry.person for entry in cache.subjects("test")}
    if known := [person for digest, person in test.items() if digest in set(card.get("training_persons", ()))]:
        raise UserError(
            f"expected weights that have seen no person of the test split, got {len(known)} that they were trained on "
            f"({', '.join(known[:3])}); pre-train with this cohort's split"
        )


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    return json.loads(json.dumps(value))
