"""What model.json says of a trained network, whatever its task."""

from __future__ import annotations

from typing import Any

from medprism.data.cache import Cache
from medprism.models.folder import person_digests
from medprism.models.prism import Prism

CITATION = (
    "Tan et al., Towards a Universal 3D Medical Multi-modality Generalization via Learning Personalized Invariant "
    "Representation, ICCV 2025, https://arxiv.org/abs/2411.06106"
)


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
