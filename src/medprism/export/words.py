"""What an export says of a model in words: channels, normalisation, purpose, whom to cite."""

from __future__ import annotations

from medprism.data.intensity import Normaliser
from medprism.inference.classification import ClassificationModel
from medprism.inference.load import AnyModel
from medprism.inference.segmentation import SegmentationModel

FOREGROUNDS = {
    "nonzero": "voxels that are not exactly zero",
    "auto": "the tissue: voxels that are not zero, or stand out of noisy air",
    "body": "the body: denser than −300 HU, cavities included",
    "uptake": "the body: SUV above 0.1, cavities included",
    "emission": "the body in PET without attenuation correction",
}
NOT_FOR_CARE = "Not a medical device, and not for diagnosis or treatment."


def purpose(model: AnyModel) -> str:
    """What a model does, in a sentence without its full stop."""
    given = f"any of {', '.join(model.takes)}"
    if isinstance(model, SegmentationModel):
        return f"outlines {', '.join(model.regions)} in {given}"
    if isinstance(model, ClassificationModel):
        return f"tells {' from '.join(model.classes)} by {given}" if len(model.classes) == 2 else _classes(model, given)
    return f"makes {', '.join(model.makes)} of {given}"


def _classes(model: ClassificationModel, given: str) -> str:
    return f"tells the class ({', '.join(model.classes)}) by {given}"


def normalisation(normaliser: Normaliser) -> str:
    """How intensities x become what the network takes, as a formula in words."""
    low, high = (f"{end:g}" for end in normaliser.clip)
    first, last = (f"{limit:g}" for limit in normaliser.limits)
    made = {
        "zscore": "(x − mean) / standard deviation of the foreground",
        "percentile": f"percentiles {first} and {last} of the foreground become 0 and 1",
        "median": "x / (4 × median of the foreground)",
        "window": f"{first} and {last} {normaliser.unit} become {low} and {high}",
        "suv": f"{first} and {last} {normaliser.unit} become {low} and {high}",
    }[normaliser.kind]
    return f"{made}; clipped to {low} … {high}"


def outputs(model: AnyModel) -> list[str]:
    """What each channel of the network's output is."""
    if isinstance(model, SegmentationModel):
        names = {value: name for name, value in model.labels.items()}
        return [f"{names.get(value, 'label')} (label {value})" for value in model.classes]
    if isinstance(model, ClassificationModel):
        return list(model.classes)
    return [name if name in model.makes else f"{name} (not trained, to be ignored)" for name in model.modalities]


def citation(model: AnyModel) -> str:
    """Whom to cite; empty if the card does not say."""
    return str(model.card.get("citation") or "")
