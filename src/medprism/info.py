"""The verb `info`: what a model, a cache or a cohort file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medprism.errors import UserError


def info(path: Path, *, json_output: bool = False) -> dict[str, Any]:
    """Tell what a model folder, a run, a prepared cohort or a cohort file holds.

    Args:
        path: any of them.
        json_output: print JSON instead of a table.

    Returns:
        What was told.

    Raises:
        UserError: it is none of them, or damaged.
    """
    told = describe(Path(path))
    console = Console()
    if json_output:
        console.print_json(json.dumps(told))
        return told
    table = Table(show_header=False, box=None)
    for key, value in told.items():
        text = value if isinstance(value, str) else json.dumps(value)
        table.add_row(f"[bold]{key}[/]", text if len(text) < 400 else f"{text[:400]} …")
    console.print(table)
    return told


def describe(path: Path) -> dict[str, Any]:
    """The facts as plain JSON values."""
    from medprism.data.cache import INDEX, Cache
    from medprism.data.cohort import SPLITS, Cohort
    from medprism.models.folder import load_card

    if (path / INDEX).exists():
        cache = Cache.open(path)
        return {
            "kind": "prepared cohort",
            "name": cache.name,
            "modalities": list(cache.modalities),
            "subjects": {split: len(cache.subjects(split)) for split in SPLITS},
            "labels": cache.labels,
            "regions": cache.regions,
            "recipe": cache.recipe.to_dict(),
            "split_hash": cache.split_hash,
            "megabytes": round(sum(entry.megabytes for entry in cache.subjects()), 1),
        }
    if path.is_file():
        cohort = Cohort.load(path, check_files=False)
        return {
            "kind": "cohort",
            "name": cohort.name,
            "modalities": list(cohort.modalities),
            "subjects": {split: len(cohort.subjects(split)) for split in SPLITS},
            "scans": sum(len(subject.images) for subject in cohort.subjects()),
            "labels": cohort.labels,
            "regions": cohort.regions,
            "split_hash": cohort.split_hash,
        }
    if not path.is_dir():
        raise UserError(f"expected a model, a run, a prepared cohort or a cohort file, got nothing at {path}")
    return {"kind": "model", **load_card(path)}
