"""An ONNX export: graphs, the model's card, and a page that says what comes before and after them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import medprism
from medprism._optional import require
from medprism.export.graphs import Traceable, traceable
from medprism.export.onnx_file import OPSET, Agreement, agreed, compared, session, write
from medprism.export.page import page
from medprism.inference.classification import ClassificationModel
from medprism.inference.load import AnyModel
from medprism.models.folder import CARD, sha256
from medprism.models.templates import FOLDER

GRAPH, HEAD, PAGE = "model.onnx", "head.onnx", "README.md"
OUTPUTS = {"transfer": "images_made", "segmentation": "logits", "classification": "features"}
"""Task -> what the graph calls its output."""


def require_packages() -> None:
    """Stop early if the extra is not installed.

    Raises:
        UserError: so it is.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra="onnx")


def fill(model: AnyModel, folder: Path) -> list[str]:
    """Write graphs, card and page into a folder, and compare the graphs with the network.

    Args:
        model: on the CPU.
        folder: exists and is empty.

    Returns:
        What to tell, line by line.

    Raises:
        UserError: the network cannot be a graph, or the graph says something else.
    """
    traced = traceable(model.runner.network, model.task, OUTPUTS)
    examples = {
        "images": torch.zeros(2, *traced.shape),
        "present": torch.ones(2, traced.shape[0], dtype=torch.bool),
    }
    write(traced.graph, examples, traced.output, folder / GRAPH)
    found = {GRAPH: compared(folder / GRAPH, traced)}
    if isinstance(model, ClassificationModel):
        found[HEAD] = _head(model.runner.network, folder / HEAD)
    if model.filling is not None and model.path is not None:
        shutil.copytree(model.path / FOLDER, folder / FOLDER)
    about = facts(traced, model, {name: sha256(folder / name) for name in found}, found)
    card = json.dumps({**model.card, "onnx": about}, indent=2, allow_nan=False)
    (folder / CARD).write_text(card + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(model, about), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.glob("*.onnx*")) / 1e6
    return [
        f"{name}: largest difference from the network {one.absolute:.2g} ({one.relative:.2g} of the largest output), "
        f"over {one.subsets} subset{'s' if one.subsets > 1 else ''} of scans"
        if name == GRAPH
        else f"{name}: largest difference {one.absolute:.2g} ({one.relative:.2g})"
        for name, one in found.items()
    ] + [f"size: {size:.1f} MB"]


def facts(
    traced: Traceable, model: AnyModel, hashes: Mapping[str, str], found: Mapping[str, Agreement]
) -> dict[str, Any]:
    """What the card says of the graphs, plain JSON."""
    serves = [[model.modalities[place] for place in subset] for subset in traced.subsets]
    return {
        "inputs": {"images": ["batch", *traced.shape], "present": ["batch", traced.shape[0]]},
        "output": traced.output,
        "serves": serves if len(serves) == 1 else "every non-empty subset",
        "opset": OPSET,
        "sha256": dict(hashes),
        "relative_difference": {name: one.relative for name, one in found.items()},
        "subsets_compared": found[GRAPH].subsets,
        "written_by": {"medprism": medprism.__version__, "torch": str(torch.__version__)},
    }


def _head(network: nn.Module, path: Path) -> Agreement:
    """Write the head of a classifier, from the mean of the windows' features to logits, and compare it."""
    head = network.head
    assert isinstance(head, nn.Module)
    head = head.eval().requires_grad_(False)
    width = next(layer.in_features for layer in head.modules() if isinstance(layer, nn.Linear))
    features = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    write(head, {"features": features[:2]}, "logits", path)
    with torch.inference_mode():
        wanted = head(features).numpy()
    [got] = session(path).run(None, {"features": features.numpy()})
    absolute = float(abs(got - wanted).max())
    return agreed(Agreement(absolute, absolute / max(float(abs(wanted).max()), 1e-12), 1), path.name)
