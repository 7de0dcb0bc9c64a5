"""What all benchmarks share: the machine, alternating rounds, ratios, the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

Way = Callable[[], object]
Seconds = dict[str, dict[str, list[float]]]
"""Way -> "clock" and "processor" -> seconds of each round."""

console = Console(width=None if sys.stdout.isatty() else 120)


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """With the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="in each of which all ways take turns")
    made.add_argument("--threads", type=int, help="all cores by default")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, help="JSON file for the result")
    return made


def alternate(ways: Mapping[str, Way], rounds: int, device: str = "cpu") -> Seconds:
    """Seconds of each way by the clock and by the processor, in rounds in which all take turns.

    Args:
        ways: what to measure, warmed up.
        rounds: 1 or more.
        device: whose work is waited for.
    """
    seconds: Seconds = {name: {"clock": [], "processor": []} for name in ways}
    for _ in track(range(rounds), "measuring", console=Console(stderr=True)):
        for name, way in ways.items():
            synchronise(device)
            begun = time.perf_counter(), time.process_time()
            way()
            synchronise(device)
            seconds[name]["clock"].append(time.perf_counter() - begun[0])
            seconds[name]["processor"].append(time.process_time() - begun[1])
    return seconds


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How much faster, by rounds: median, least, largest."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"faster_by": median(each), "least": min(each), "largest": max(each)}


def roof(dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations a second of a large product of matrices or a wide convolution, the faster of them: what a floor is of.

    By the processor's clock on CPUs, where for float32 it is the convolution, by a third.
    """
    side, width = (2048, 64) if device == "cpu" else (8192, 256)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(4, width, 32, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last_3d)
    kernel = torch.randn(width, width, 3, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last_3d)
    ways = ((lambda: a @ b, 2 * side**3), (lambda: torch.conv3d(x, kernel, padding=1), 54 * width * x.numel()))
    clock = time.process_time if device == "cpu" else time.perf_counter
    fastest = 0.0
    for way, flop in ways * 5:
        synchronise(device)
        begun = clock()
        way()
        synchronise(device)
        fastest = max(fastest, flop / (clock() - begun))
    return fastest


def peak_gigabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": processor(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in ("medprism", "monai", "torch", "numpy", "blosc2", "nibabel")}
        | {"python": platform.python_version()},
    }


def processor() -> str:
    """Model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def publish(
    name: str,
    options: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    title: str,
    columns: Mapping[str, str],
    **facts: object,
) -> None:
    """Print a table and write the JSON file, if one is asked for.

    Args:
        name: of the benchmark.
        options: as parsed; all go into the file.
        rows: of the result.
        title: of the table.
        columns: key of a row -> format of its cells, "" for text.
        facts: what else goes into the file.
    """
    device = getattr(options, "device", "cpu")
    about = machine(device)
    table = Table(title=f"{title}, {about['gpu'] or about['cpu']}, {about['threads']} thread(s)")
    for column, form in columns.items():
        table.add_column(column.replace("_", " "), justify="right" if form else "left")
    for row in rows:
        table.add_row(*("–" if row.get(key) is None else format(row[key], form) for key, form in columns.items()))
    console.print(table)
    if options.out:
        given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        del given["out"]
        result = {"benchmark": name, "options": given, **facts, "rows": list(rows), "machine": about}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
