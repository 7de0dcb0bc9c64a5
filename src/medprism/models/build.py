"""Networks from what a model card says of them."""

from __future__ import annotations

from typing import Any

from torch import nn

from medprism.errors import UserError
from medprism.models.acn import ACN, ACNConfig
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.mmformer import MmFormer, MmFormerConfig
from medprism.models.modality_encoder import EncoderConfig
from medprism.models.pmkl import Student, StudentConfig, Teacher, TeacherConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.segmenter import Segmenter, SegmenterConfig


def build(architecture: dict[str, Any]) -> nn.Module:
    """The network that an `architecture` property describes, with fresh weights.

    Raises:
        UserError: the description is of another version or incomplete.
    """
    try:
        size, modalities = tuple(architecture["patch_size"]), architecture["modalities"]
        if "network" not in architecture:
            return _incomplete(architecture, modalities, size)
        config = NetworkConfig(**architecture["network"])
        if "segmenter" in architecture:
            segmenter = SegmenterConfig(**architecture["segmenter"])
            return Segmenter(config, segmenter, modalities, architecture["classes"], size)
        if "classifier" in architecture:
            classifier = ClassifierConfig(**architecture["classifier"])
            return Classifier(config, classifier, modalities, architecture["classes"], size)
        return Prism(config, modalities, size, outputs=architecture.get("outputs"))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"expected an architecture written by this version of medprism, got {architecture} ({error}); "
            "load it with the version named in its model.json"
        ) from error


def _incomplete(architecture: dict[str, Any], modalities: int, size: tuple[int, int, int]) -> nn.Module:
    """A network of the families that MedMAP was shown on."""
    shape = (EncoderConfig(**architecture["alignment"]), modalities, architecture["classes"], size)
    if "mmformer" in architecture:
        return MmFormer(MmFormerConfig(**architecture["mmformer"]), *shape)
    if "pmkl_teacher" in architecture:
        return Teacher(TeacherConfig(**architecture["pmkl_teacher"]), *shape)
    if "pmkl_student" in architecture:
        return Student(StudentConfig(**architecture["pmkl_student"]), *shape, architecture["names"])
    return ACN(ACNConfig(**architecture["acn"]), *shape, architecture["names"])
