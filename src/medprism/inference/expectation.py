"""How good an output may be expected to be: what was measured for just the scans that are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def measured(card: Mapping[str, Any], given: Collection[str], **wanted: str | None) -> dict[str, Any] | None:
    """What the card's metrics say was measured with exactly these scans.

    Args:
        card: model.json; its `metrics` are rows as in metrics.json, or hold them under `rows`, if it has any.
        given: canonical names.
        wanted: what else the row must say, such as `metric="dice", region="WT"`.

    Returns:
        `mean`, `ci95`, `n` (subjects) and `split`, each None where nobody noted it; or None where nothing was measured.
    """
    metrics = card.get("metrics") or []
    about = metrics if isinstance(metrics, Mapping) else {"rows": metrics}
    for row in about.get("rows", []):
        fits = row.get("method") == "model" and set(row.get("given") or ()) == set(given)
        if fits and row.get("mean") is not None and all(row.get(key) == value for key, value in wanted.items()):
            return {**{key: row.get(key) for key in ("mean", "ci95", "n")}, "split": about.get("split")}
    return None


def interval(row: Mapping[str, Any]) -> str:
    """Its 95 % interval in words, empty where it has none."""
    low, high = row.get("ci95") or (None, None)
    return "" if low is None else f" ({low:.3g} to {high:.3g})"
