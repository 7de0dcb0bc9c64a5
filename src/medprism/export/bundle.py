"""A MONAI bundle of a trained model, for inference: metadata, a configuration that runs, the model folder as it is.

https://docs.monai.io/en/stable/mb_specification.html. The weights stay in safetensors, so there is no `model.pt`;
scans are prepared and results written by medprism itself, so that they are those of its commands.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import monai
import numpy as np
import safetensors
import torch

import medprism
from medprism.export.words import NOT_FOR_CARE, citation, outputs, purpose
from medprism.inference.classification import ClassificationModel
from medprism.inference.load import AnyModel
from medprism.inference.model import Model
from medprism.inference.segmentation import SegmentationModel
from medprism.models.folder import CARD, WEIGHTS
from medprism.models.templates import FOLDER

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def fill(model: AnyModel, folder: Path) -> list[str]:
    """Write a bundle into a folder.

    Args:
        model: from a folder.
        folder: exists and is empty.

    Returns:
        What to tell, line by line.
    """
    assert model.path is not None
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    for name in (WEIGHTS, CARD):
        shutil.copyfile(model.path / name, folder / "models" / name)
    if model.filling is not None:
        shutil.copytree(model.path / FOLDER, folder / "models" / FOLDER)
    _json(folder / "configs" / "metadata.json", metadata(model))
    _json(folder / "configs" / "inference.json", inference(model))
    (folder / "docs" / "README.md").write_text(_page(model), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return [f"a bundle that {purpose(model)}", f"size: {size:.1f} MB"]


def metadata(model: AnyModel) -> dict[str, Any]:
    """The content of metadata.json.

    Args:
        model: whose.
    """
    card = model.card
    packages = {"medprism": medprism.__version__, "safetensors": safetensors.__version__}
    clips = [model.recipe.normalisers[name].clip for name in model.modalities]
    image = _tensor(
        "magnitude",
        model.modalities,
        [*model.patch_size],
        [min(low for low, _ in clips), max(high for _, high in clips)],
        modality=", ".join(model.modalities),
    )
    return {
        "schema": SCHEMA,
        "version": str(card.get("version", medprism.__version__)),
        "changelog": {str(card.get("version", medprism.__version__)): "exported"},
        "monai_version": monai.__version__.partition("+")[0],
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": packages,
        "name": f"medprism {model.task}",
        "task": f"{model.task} with missing scans",
        "description": f"A network that {purpose(model)}. Scans that a person lacks are left out.",
        "authors": "those who trained the model",
        "copyright": "of those who trained the model",
        "data_source": str(card.get("cohort") or "not stated"),
        "data_type": "nibabel",
        "intended_use": f"Research. {NOT_FOR_CARE}",
        "references": [cite] if (cite := citation(model)) else [],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": _prediction(model)}},
    }


def inference(model: AnyModel) -> dict[str, Any]:
    """The content of inference.json.

    Args:
        model: whose.
    """
    options = {"target": "all", "intensity": "like-train"} if isinstance(model, Model) else {}
    return {
        "imports": ["$import torch", "$import medprism", "$import medprism.export.bundle_run"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        **options,
        "model": "$medprism.load(@bundle_root + '/models', str(@device))",
        "network_def": {"_target_": "medprism.export.bundle_run.Window", "model": "@model"},
        "inferer": {
            "_target_": "medprism.export.bundle_run.PatientInferer",
            "model": "@model",
            **{name: f"@{name}" for name in options},
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$medprism.export.bundle_run.patients(@dataset_dir)",
        },
        "evaluator": {
            "_target_": "medprism.export.bundle_run.Evaluator",
            "dataset": "@dataset",
            "inferer": "@inferer",
            "output_dir": "@output_dir",
        },
        "run": ["$@evaluator.run()"],
    }


def _prediction(model: AnyModel) -> dict[str, Any]:
    """What comes out of the network for one window."""
    if isinstance(model, ClassificationModel):
        return {**_tensor("classes", outputs(model), [], []), "type": "probabilities"}
    kind = "segmentation" if isinstance(model, SegmentationModel) else "magnitude"
    return _tensor(kind, outputs(model), [*model.patch_size], [])


def _tensor(
    kind: str, channels: list[str] | tuple[str, ...], shape: list[int], values: list[float], modality: str = "n/a"
) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        "modality": modality,
        "num_channels": len(channels),
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": True,
        "channel_def": {str(place): name for place, name in enumerate(channels)},
    }


def _page(model: AnyModel) -> str:
    """The text of docs/README.md."""
    result = {
        "segmentation": "`seg.nii.gz`, on the grid of a given scan",
        "classification": "`class.json`",
        "transfer": "a NIfTI file for each modality that the person lacks, marked as synthetic",
    }[model.task]
    files = ", ".join(f"`{name}.nii.gz`" for name in model.takes)
    cite = citation(model)
    return "\n".join(
        [
            f"# A model that {purpose(model)}",
            "",
            "```bash",
            f"pip install medprism[bundle]=={medprism.__version__}",
            "python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\",
            "  --dataset_dir SCANS --output_dir RESULTS",
            "```",
            "",
            f"SCANS has a folder for each person with whichever there are of {files}, or is one person's folder; any "
            f"layout that `medprism inspect` reads will do. RESULTS gets, for each person, {result}, with a JSON file "
            "that says how it was made. What is there already from the same model and scans is kept.",
            "",
            "Weights and card are in `models`, as medprism writes them (safetensors, no pickle). medprism treats "
            "intensities, grids and windows as in training: the results are those of its commands.",
            "",
            f"{NOT_FOR_CARE} Whose model it is and under which licence, say those who trained it.",
            *(["", f"Cite: {cite}"] if cite else []),
            "",
        ]
    )


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
