"""What model.json says of a trained network, whatever its task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from medprism.data.cache import Cache, Entry
from medprism.models.folder import person_digests
from medprism.models.prism import Prism

CITATION = (
    "Tan et al., Towards a Universal 3D Medical Multi-modality Generalization via Learning Personalized Invariant "
    "Representation, ICCV 2025, https://arxiv.org/abs/2411.06106"
)

BRAINMVP = "Rui et al., Multi-modal Vision Pre-training for Medical Image Analysis, https://arxiv.org/abs/2410.10604"


def transfer_card(cache: Cache, network: Prism, config: dict[str, Any], score: float) -> dict[str, Any]:
    """The card of a network that generates scans.

    Args:
        cache: what it was trained on.
        network: the network.
        config: the run's resolved configuration.
        score: validation PSNR in dB.
    """
    return {"task": "transfer", **common(cache, network, network, config), "validation_psnr": score}


def representation_card(cache: Cache, network: Prism, config: dict[str, Any], score: float) -> dict[str, Any]:
    """The card of an encoder, from which other trainings start; arguments as of `transfer_card`."""
    about = common(cache, network, network, config)
    return {"task": "representation", **about, "citation": BRAINMVP, "validation_psnr": score}


def common(
    cache: Cache,
    network: Any,  # noqa: ANN401 - each family has its own
    inner: Any,  # noqa: ANN401
    config: dict[str, Any],
    *,
    seen: Iterable[str] = (),
    training: Iterable[Entry] | None = None,
) -> dict[str, Any]:
    """What the cards of all tasks say, beside what `save_model` adds.

    Args:
        cache: what it was trained on.
        network: the whole network.
        inner: what knows its patch size and divisor: the prism in it, or itself.
        config: the run's resolved configuration.
        seen: digests of persons that the weights were initialised from.
        training: the subjects trained on, those of the training split if not given.
    """
    subjects = [*(cache.subjects("training") if training is None else training), *cache.subjects("validation")]
    own = person_digests(entry.person for entry in subjects)
    return {
        "architecture": network.architecture,
        "modalities": list(cache.modalities),
        "normalisers": {name: cache.recipe.normalisers[name].to_dict() for name in cache.modalities},
        "typical_scales": {name: scale.to_dict() for name, scale in cache.typical_scales.items()},
        "spacing": cache.recipe.spacing,
        "reference": cache.recipe.reference,
        "margin": cache.recipe.margin,
        "patch_size": list(inner.patch_size),
        "size_divisor": inner.divisor,
        "encoder_keys": encoder_names(network),
        "cohort": cache.name,
        "split_hash": cache.split_hash,
        "training_persons": sorted({*own, *seen}),
        "config": config,
        "citation": CITATION,
    }


def encoder_names(network: nn.Module) -> list[str]:
    """Names of a prism's encoder in a network, parameters and running statistics; none without a prism in it."""
    parts = ("stem", "down", "blocks", "norm", "net.swinViT", "net.encoder", "fine", "stages")
    before = "" if isinstance(network, Prism) else "prism."
    starts = (f"{before}table", *(f"{before}backbone.{part}" for part in parts))
    learned = (name for name, tensor in network.state_dict().items() if tensor.is_floating_point())
    return [name for name in learned if name.startswith(starts)]
