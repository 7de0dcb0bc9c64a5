"""The tables of docs/performance.md, from the JSON files of a folder.

    python -m benchmarks table benchmarks/results

What a file's rows hold is printed as Markdown under the file's name; a test holds the page to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
DIGITS = {"difference": ".0e", "seconds_per_subject": ".2f", "efficiency": ".2f", "crops_per_second": ".1f"}
OTHERWISE = ".3g"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    for name, table in tables(folder).items():
        print(f"{name}\n\n{table}\n")


def tables(folder: Path) -> dict[str, str]:
    """Name of each file -> its rows as Markdown."""
    return {path.stem: markdown(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))}


def markdown(result: Mapping[str, Any]) -> str:
    """The rows of a result; a ratio comes with its least and largest."""
    rows = [_together(row) for row in result["rows"]]
    columns = [key for key in rows[0] if any(row.get(key) is not None for row in rows)]
    lines = [columns, ["---"] * len(columns), *([_cell(key, row.get(key)) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('_', ' ') for cell in line)} |" for line in lines)


def _together(row: Mapping[str, Any]) -> dict[str, Any]:
    """Least and largest behind the ratio that they are of."""
    made = {key: value for key, value in row.items() if key not in ("least", "largest")}
    for key in ("faster_by", "medprism_is_faster_by"):
        if key in made and "least" in row:
            made[key] = f"{made[key]:.2f} × ({row['least']:.2f} to {row['largest']:.2f})"
    return made


def _cell(key: str, value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else format(value, DIGITS.get(key, OTHERWISE))


if __name__ == "__main__":
    main()
