"""The verb `info`: what a model, a run, a prepared cohort, a cohort file or an evaluation holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medprism.errors import UserError

OWN_SPACING = "that of each subject's reference scan"


def info(path: Path, *, json_output: bool = False) -> dict[str, Any]:
    """Tell what a model, a run, a prepared cohort, a cohort file or an evaluation holds.

    Args:
        path: any of them.
        json_output: print all of it as JSON, instead of what people want to know as a table.

    Returns:
        All of it.

    Raises:
        UserError: it is none of them, or damaged.
    """
    kind, told = describe(Path(path))
    told = {"kind": kind, **told}
    if json_output:
        Console().print_json(json.dumps(told), ensure_ascii=False)
        return told
    table = Table(show_header=False, box=None)
    shown = {"model": _of_model, "evaluation": _of_evaluation, "prepared cohort": _of_cache}.get(kind, dict)(told)
    for key, value in shown.items():
        if value not in (None, "", {}, []):
            table.add_row(f"[bold]{key.replace('_', ' ')}[/]", escape(_text(value)))
    Console(highlight=False).print(table)
    return told


def describe(path: Path) -> tuple[str, dict[str, Any]]:
    """What it is, and the facts as plain JSON values.

    Raises:
        UserError: it is nothing of medprism, or damaged.
    """
    from medprism.data.cache import INDEX
    from medprism.evaluation.results import METRICS, Results
    from medprism.models.folder import COMES_ALONG, find_model, load_card

    if str(path).startswith(COMES_ALONG):
        path = find_model(path)
    if not path.exists():
        raise UserError(f"expected a model, a run, a prepared cohort or a cohort file, got nothing at {path}")
    if path.is_file():
        return "cohort", _cohort(path)
    if (path / INDEX).exists():
        return "prepared cohort", _cache(path)
    if (path / METRICS).exists():
        return "evaluation", {**Results.read(path).head, "rows": json.loads((path / METRICS).read_text())["rows"]}
    card = load_card(path)
    if (path / "config.yaml").exists():
        card["run"] = "complete" if (path / "done").exists() else "not finished; --resume auto goes on"
    return "model", card


def _cohort(path: Path) -> dict[str, Any]:
    from medprism.data.cohort import SPLITS, Cohort

    cohort = Cohort.load(path, check_files=False)
    held = {name: sum(name in subject.images for subject in cohort.subjects()) for name in cohort.modalities}
    return {
        "name": cohort.name,
        "modalities": list(cohort.modalities),
        "subjects": {split: len(cohort.subjects(split)) for split in SPLITS},
        "scans": held,
        "labels": dict(cohort.labels),
        "regions": dict(cohort.regions),
        "split_hash": cohort.split_hash,
    }


def _cache(path: Path) -> dict[str, Any]:
    from medprism.data.cache import Cache
    from medprism.data.cohort import SPLITS

    cache = Cache.open(path)
    return {
        "name": cache.name,
        "modalities": list(cache.modalities),
        "subjects": {split: len(cache.subjects(split)) for split in SPLITS},
        "labels": cache.labels,
        "regions": cache.regions,
        "recipe": cache.recipe.to_dict(),
        "split_hash": cache.split_hash,
        "megabytes": round(sum(entry.megabytes for entry in cache.subjects()), 1),
    }


def _of_cache(told: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe in short."""
    recipe = told["recipe"]
    shown = {key: value for key, value in told.items() if key != "recipe"}
    return {**shown, "spacing": recipe["spacing"] or OWN_SPACING, "normalisers": _kinds(recipe["normalisers"])}


def _of_model(card: Mapping[str, Any]) -> dict[str, Any]:
    """What people want to know of a model card."""
    config = card.get("config", {})
    metrics = card.get("metrics") or {}
    return {
        "kind": "model",
        "run": card.get("run"),
        "task": card.get("task"),
        "modalities": card["modalities"],
        "takes": card.get("sources"),
        "makes": card.get("makes"),
        "absent scans": f"filled by {card['fill']}" if card.get("fill") else None,
        "regions": list(card.get("regions", ())),
        "classes": list(card["classes"]) if card.get("task") == "classification" else None,
        "network": card["architecture"].get("network"),
        "patch": card["patch_size"],
        "spacing": card["spacing"] or OWN_SPACING,
        "templates": str(card.get("templates", ""))[:16],
        "normalisers": _kinds(card["normalisers"]),
        "cohort": card.get("cohort"),
        "trained on": f"{len(card['training_persons'])} persons" if "training_persons" in card else None,
        "epochs": config.get("epochs"),
        "validation": _validation(card),
        "evaluated": metrics.get("split") if isinstance(metrics, Mapping) else None,
        "split hash": str(card.get("split_hash"))[:16],
        "weights": str(card["sha256"])[:16],
        "version": card.get("version"),
        "cite": card.get("citation"),
    }


def _validation(card: Mapping[str, Any]) -> str | None:
    """The score by which the best epoch was chosen."""
    told = {"psnr": "{:.2f} dB PSNR", "dice": "Dice {:.3f}", "balanced_accuracy": "balanced accuracy {:.3f}"}
    scores = {name: card.get(f"validation_{name}") for name in told}
    return next((told[name].format(score) for name, score in scores.items() if score is not None), None)


def _of_evaluation(told: Mapping[str, Any]) -> dict[str, Any]:
    """The head of metrics.json, its hashes shortened and its rows counted."""
    short = {key: str(told[key])[:16] for key in ("split_hash", "model_hash")}
    left_out = ("rows", "recipe", "rivals", "machine")
    return {**{key: value for key, value in told.items() if key not in left_out}, **short, "rows": len(told["rows"])}


def _kinds(normalisers: Mapping[str, Any]) -> dict[str, str]:
    return {name: normaliser["kind"] for name, normaliser in normalisers.items()}


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A value without the brackets of JSON."""
    if isinstance(value, Mapping):
        nested = any(isinstance(item, Mapping | list) for item in value.values())
        return ("\n" if nested else ", ").join(f"{key}: {_text(item)}" for key, item in value.items())
    return " ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
