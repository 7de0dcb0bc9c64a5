"""What N subjects on G GPUs would take: a calculation on paper from costs measured on one machine, not a measurement.

    python -m benchmarks scale --subjects 1000 10000 --gpus 1 8 64
    python -m benchmarks scale --patch 96 --seconds 0.5 --network 376 --templates 116   your own step and network

A step waits for the slowest of four: the processor that computes it, the loaders, the disk that all share, and the
exchange of gradients (a ring: each GPU sends and receives 2 (G - 1) / G times their bytes). `least` is an epoch in
which the four overlap wholly, `most` one in which they follow each other; a real one lies between. Not in it: start-up,
validation, checkpoints, stragglers, and a disk whose content fits into the memory of the nodes (then it is read once).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.common import console

BLOCK = 32  # side of the cubes that a cache unpacks, see medprism.data.entry
FACTORS = ("compute", "loaders", "disk", "gradients")


@dataclass(frozen=True)
class Costs:
    """What one of each takes, and where the number is from.

    Attributes:
        megabytes: of a prepared subject on disk; four phantom brains at 1 mm, 4 scans and a label, int16 under LZ4.
        voxels: of a prepared subject, millions; theirs.
        seconds: of a step of one process that waits for nothing; PUIR, U-Net 16, 48³, two CPU cores (docs/results.md).
        batch: sub-volumes in a step of one process; theirs.
        per_subject: sub-volumes of a subject in an epoch; the default of `patches.per_subject`.
        patch: side of a sub-volume in voxels; that of the step above.
        crops: that one loader process reads a second; of 96³, so fewer than it would (docs/results.md).
        workers: loader processes of each GPU; a guess.
        network: megabytes of the network's gradients, 4 bytes a number; U-Net 16 for 48³, SwinUNETR-48 has 376.
        templates: megabytes of theirs, which are exchanged whole: 4 bytes a voxel and modality; 0 without any.
        per_node: GPUs in a node; usual.
        inside: GB/s between GPUs of a node; cautious against the 300 to 900 that vendors name. Not measured.
        between: GB/s of a node to others; the line rate of 100 Gbit/s. Not measured.
        disk: GB/s that the file system gives to all nodes together; a guess, ask who runs yours.
    """

    megabytes: float = 14.1
    voxels: float = 4.9
    seconds: float = 1.09
    batch: int = 2
    per_subject: int = 2
    patch: int = 48
    crops: float = 61.3
    workers: int = 4
    network: float = 11.0
    templates: float = 0.0
    per_node: int = 8
    inside: float = 150.0
    between: float = 12.5
    disk: float = 2.0

    @property
    def gradient(self) -> float:
        """Megabytes that each process has to exchange in a step."""
        return self.network + self.templates


def crop_megabytes(costs: Costs) -> float:
    """Read for one sub-volume: all blocks that it touches, on average, at most the whole subject."""
    touched = (costs.patch + BLOCK) ** 3 / 1e6
    return costs.megabytes * min(1.0, touched / costs.voxels)


def step(costs: Costs, gpus: int) -> dict[str, float]:
    """Seconds of a step that each factor asks for.

    Args:
        costs: of one of each.
        gpus: in all.
    """
    link = costs.inside if gpus <= costs.per_node else min(costs.inside, costs.between)
    return {
        "compute": costs.seconds,
        "loaders": costs.batch / (costs.crops * costs.workers),
        "disk": gpus * costs.batch * crop_megabytes(costs) / (1000 * costs.disk),
        "gradients": 2 * (gpus - 1) / gpus * costs.gradient / (1000 * link),
    }


def disk_saturates(costs: Costs) -> float:
    """The number of GPUs from which the disk is slower than the computing."""
    return costs.seconds * 1000 * costs.disk / (costs.batch * crop_megabytes(costs))


def row(costs: Costs, subjects: int, gpus: int) -> dict[str, Any]:
    """Cache, epoch and traffic of so many subjects on so many GPUs."""
    seconds = step(costs, gpus)
    steps = math.ceil(subjects * costs.per_subject / (costs.batch * gpus))
    least = steps * max(seconds.values())
    return {
        "subjects": subjects,
        "gpus": gpus,
        "cache_gigabytes": subjects * costs.megabytes / 1000,
        "steps": steps,
        "epoch_least_s": least,
        "epoch_most_s": steps * sum(seconds.values()),
        "speedup_at_most": math.ceil(subjects * costs.per_subject / costs.batch) * max(step(costs, 1).values()) / least,
        "gradient_megabytes_a_step": 2 * (gpus - 1) / gpus * costs.gradient,
        "slowest": max(FACTORS, key=lambda name: seconds[name]),
        **{f"{name}_s": value for name, value in seconds.items()},
    }


def main(words: Sequence[str] | None = None) -> None:
    """Print the table and write the JSON file, if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    for field in fields(Costs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = parser.parse_args(words)
    costs = Costs(**{field.name: getattr(options, field.name) for field in fields(Costs)})
    wrong = [name for name, value in asdict(costs).items() if value < 0 or not (value or name == "templates")]
    if wrong or min(*options.subjects, *options.gpus) < 1:
        parser.error(f"expected positive numbers, got others for {', '.join(wrong) or 'subjects or gpus'}")
    rows = [row(costs, subjects, gpus) for subjects in options.subjects for gpus in options.gpus]
    table = Table(title="calculated from the costs of one machine, not measured")
    columns = {"subjects": "", "gpus": "", "cache_gigabytes": ".0f", "epoch_least_s": ".0f", "epoch_most_s": ".0f"}
    columns |= {"speedup_at_most": ".1f", "gradient_megabytes_a_step": ".0f", "slowest": ""}
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for one in rows:
        table.add_row(*(format(one[name], form) for name, form in columns.items()))
    console.print(table)
    console.print(f"the disk is slower than the computing from {disk_saturates(costs):.0f} GPUs on")
    if options.out:
        result = {"benchmark": "scale", "calculated": True, "costs": asdict(costs), "rows": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
