"""Networks from what a model card says of them."""

from __future__ import annotations

from typing import Any

from medprism.errors import UserError
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.segmenter import Segmenter, SegmenterConfig


def build(architecture: dict[str, Any]) -> Prism | Segmenter | Classifier:
    """The network that an `architecture` property describes, with fresh weights.

    Raises:
        UserError: the description is of another version or incomplete.
    """
    try:
        config = NetworkConfig(**architecture["network"])
        size = tuple(architecture["patch_size"])
        modalities = architecture["modalities"]
        if "segmenter" in architecture:
            segmenter = SegmenterConfig(**architecture["segmenter"])
            return Segmenter(config, segmenter, modalities, architecture["classes"], size)
        if "classifier" in architecture:
            classifier = ClassifierConfig(**architecture["classifier"])
            return Classifier(config, classifier, modalities, architecture["classes"], size)
        return Prism(config, modalities, size)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"expected an architecture written by this version of medprism, got {architecture} ({error}); "
            "load it with the version named in its model.json"
        ) from error
