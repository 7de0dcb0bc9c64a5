"""The one entry point of all benchmarks.

    python -m benchmarks                          list them
    python -m benchmarks training_step --help     options of one
    python -m benchmarks all --out results        run every one as docs/performance.md reports it
    python -m benchmarks table results            its tables, from the JSON files in a folder

Each measures medprism and its peers in the same run, alternating, and writes JSON: machine, versions, seed, medians of
repeats, and ratios within a round, as seconds of a shared machine cannot be compared between runs. What a change costs
is told by counts (`counts`), which a test compares with `benchmarks/counts.json`.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("training_step", "masking", "data_path", "preparation", "inference", "counts", "scale")
"""Of the benchmarks, one module each with a `main`."""

RUNS: dict[str, tuple[str, ...]] = {
    "training_step-unet-24": ("training_step", "--patch", "24", "--rounds", "15"),
    "training_step-unet-32": ("training_step", "--patch", "32", "--rounds", "15"),
    "training_step-unet-48": ("training_step", "--patch", "48", "--rounds", "9"),
    "training_step-swinunetr-24": (
        *("training_step", "--network", "swinunetr", "--width", "24"),
        *("--patch", "64", "--rounds", "3"),
    ),
    "masking": ("masking",),
    "data_path": ("data_path",),
    "preparation": ("preparation",),
    "inference": ("inference",),
    "inference-ct": ("inference", "--shape", "512", "512", "600", "--modalities", "1", "--rounds", "0"),
}
"""Name of a JSON file -> the benchmark that makes it, for `all`."""


def main() -> int:
    """Run what is asked for; 2 if there is no such benchmark."""
    name, *words = sys.argv[1:] or ["-h"]
    if name in ("-h", "--help"):
        print(__doc__)
        print("\n".join(f"  {known:15} {first_line(known)}" for known in NAMES))
        return 0
    if name == "all":
        return run_all(words)
    if name != "table" and name not in NAMES:
        print(f"expected one of {', '.join(NAMES)}, table or all, got {name}; see --help", file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *words]
    import_module(f"benchmarks.{name}").main()
    return 0


def first_line(name: str) -> str:
    """What a benchmark measures; read, not imported, as that takes seconds."""
    return (HERE / f"{name}.py").read_text().split('"""')[1].splitlines()[0]


def run_all(words: list[str]) -> int:
    """Each in a process of its own, so that none inherits another's memory."""
    if len(words) != 2 or words[0] != "--out":
        print("expected `all --out FOLDER`", file=sys.stderr)
        return 2
    folder = Path(words[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, command in RUNS.items():
        print(f"── {name}", flush=True)
        subprocess.run(
            [sys.executable, "-m", "benchmarks", *command, "--out", str(folder / f"{name}.json")], check=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
