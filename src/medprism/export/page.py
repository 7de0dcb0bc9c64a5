"""The page beside an ONNX graph: what to do before and after it, complete enough to be done without medprism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medprism.data.volume import AIR
from medprism.export.words import FOREGROUNDS, NOT_FOR_CARE, citation, normalisation, outputs, purpose
from medprism.inference.classification import ClassificationModel
from medprism.inference.load import AnyModel
from medprism.inference.segmentation import SegmentationModel


def page(model: AnyModel, about: Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
        model: what was exported.
        about: what the card says of the graphs.
    """
    parts = [_head(model, about), _channels(model), _before(model), _graph(model, about), _after(model), _limits(model)]
    return "\n\n".join(parts) + "\n"


def _head(model: AnyModel, about: Mapping[str, Any]) -> str:
    shape = " × ".join(map(str, about["inputs"]["images"][2:]))
    files = [
        "| `model.onnx` | the network for one window; takes `images` and `present` |",
        "| `model.json` | the model's card: how scans are prepared, labels, what it was trained on, hashes |",
    ]
    if isinstance(model, ClassificationModel):
        files.insert(1, "| `head.onnx` | from the mean of the windows' `features` to `logits` |")
    if model.filling is not None:
        files.append("| `templates/` | what fills the channels of absent scans, in normalised intensities |")
    return "\n".join(
        [
            f"# A model that {purpose(model)}",
            "",
            f"Written by medprism {about['written_by']['medprism']}, for windows of {shape} voxels. In ONNX Runtime it "
            f"was within {about['relative_difference']['model.onnx']:.1g} of the trained network (of the largest "
            f"output), over {about['subsets_compared']} subset(s) of scans.",
            "",
            "| file | content |",
            "| --- | --- |",
            *files,
        ]
    )


def _channels(model: AnyModel) -> str:
    rows = [
        f"| {place} | {name} | {one.unit} | {FOREGROUNDS[one.foreground]} | {normalisation(one)} |"
        for place, name in enumerate(model.modalities)
        for one in [model.recipe.normalisers[name]]
    ]
    return "\n".join(
        [
            "## Channels",
            "",
            "| channel | modality | unit | foreground | normalisation |",
            "| --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


def _before(model: AnyModel) -> str:
    recipe = model.recipe
    first = f"{recipe.reference} where it is given, else the first given one" if recipe.reference else "the first given"
    sides = "its own" if recipe.spacing is None else " × ".join(f"{side:g}" for side in recipe.spacing) + " mm"
    air = ", ".join(f"{value:g} {unit}" for unit, value in AIR.items())
    steps = [
        "Axes in RAS+ order. All scans share one world space; nothing is registered here.",
        f"Grid: that of {first} in the order of the channels; voxel sides: {sides}; cut to the box that all given "
        "scans see. Linear interpolation.",
        f"Each scan: its foreground, then its normalisation (table above). Air is {air} in CT and 0 in all others.",
        f"Cut to the union of the foregrounds with {recipe.margin} voxels around it. Volumes that are smaller than a "
        "window are padded by air.",
    ]
    if model.filling is not None:
        steps.append(
            "Absent scans: their channels get the template of the modality at the place of each voxel in the world "
            "(linear interpolation, borders beyond its grid), and `present` is true for all."
        )
    return "\n".join(["## Before the graph", "", *(f"{n}. {step}" for n, step in enumerate(steps, start=1))])


def _graph(model: AnyModel, about: Mapping[str, Any]) -> str:
    _, *shape = about["inputs"]["images"]
    present = ", ".join("True" if place == 0 else "False" for place in range(shape[0]))
    serves = about["serves"]
    if isinstance(serves, list):
        (only,) = serves
        told = f"The network was made for {' + '.join(only)} and nothing else: `present` must say just these."
        present = ", ".join(str(name in only) for name in model.modalities)
    else:
        told = "`present` may be any subset with at least one scan."
    return "\n".join(
        [
            "## The graph",
            "",
            "```python",
            "import numpy as np",
            "import onnxruntime",
            "",
            'session = onnxruntime.InferenceSession("model.onnx")',
            f"images = np.zeros((1, {', '.join(map(str, shape))}), np.float32)  # normalised windows",
            f"present = np.array([[{present}]])  # which scans there are",
            f'[{about["output"]}] = session.run(None, {{"images": images, "present": present}})',
            "```",
            "",
            f"{told} What is not present is never read and may be anything; where the network has nothing to say for a "
            "`present`, the output is NaN. The work is the same for any subset.",
        ]
    )


def _after(model: AnyModel) -> str:
    channels = ", ".join(f"{place}: {name}" for place, name in enumerate(outputs(model)))
    if isinstance(model, ClassificationModel):
        steps = [
            "Windows side by side, without overlap; those without foreground are left out.",
            "Mean of `features` over the windows, each weighted by its number of foreground voxels.",
            f"`head.onnx` makes logits of this mean, softmax makes probabilities ({channels}). The head is not for "
            "single windows.",
        ]
    else:
        steps = ["Windows that overlap by half; those without foreground are left out."]
        blend = "blended by a Gaussian around the middle of each window (standard deviation 1/8 of its sides)"
        if isinstance(model, SegmentationModel):
            steps += [
                f"Softmax over the channels ({channels}) of each window, then {blend}. Voxels in no window are "
                "background.",
                "Probabilities, one class at a time, to the grid that the map is wanted on (linear interpolation); the "
                "largest wins.",
            ]
        else:
            steps += [
                f"Outputs ({channels}) {blend}, then clipped to the range of their modality. Voxels in no window are "
                "air.",
                "To the wanted grid (linear interpolation); intensities by the inverse of the normalisation, in MRI "
                "that of `typical_scales` in the card. Outside the foreground of the given scans it is air.",
            ]
    return "\n".join(["## After the graph", "", *(f"{n}. {step}" for n, step in enumerate(steps, start=1))])


def _limits(model: AnyModel) -> str:
    lines = [
        "## Limits",
        "",
        f"- {NOT_FOR_CARE}",
        "- What the foreground of each modality is exactly, is code: `medprism.data.foreground`. Where that matters, "
        "prepare scans with medprism.",
    ]
    if cite := citation(model):
        lines.append(f"- Cite: {cite}")
    return "\n".join(lines)
