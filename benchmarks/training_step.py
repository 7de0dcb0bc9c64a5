"""Seconds a step of PUIR's pre-training: as medprism does it, and Algorithm 1 to the letter.

    python benchmarks/training_step.py --out training_step.json
    python benchmarks/training_step.py --network swinunetr --width 12 --patch 64

All train the same network on the same batch, with views, backward pass and optimiser step, and get the same losses,
which is checked:

- `literal`: one source after another, repeated to M channels; the second view takes the whole network too, without
  gradient. The network is MONAI's and PyTorch's default.
- `literal, our network`: the same with the memory format and the attention of medprism's networks.
- `sequential`: one source after another through a stem of one channel; the second view stops at the bottleneck.
- `batched`: as `sequential`, all sources in one pass.

They alternate within a round, and the medians over rounds of seconds and of ratios within a round are reported, as
other work on the machine comes and goes. Seconds of the processor are less disturbed by it, with one thread hardly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from data_path import processor
from monai.networks.nets.swin_unetr import WindowAttention as MonaiWindowAttention
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from medprism.data.batch import Batch
from medprism.methods.contrast import gather_keys
from medprism.methods.puir import PUIR, Keys, PUIRConfig, Views
from medprism.models.backbone import pooled
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.window_attention import WindowAttention
from medprism.training.memory import keep_freed_memory

Step = Callable[[int], dict[str, Tensor]]
MODALITIES = ("t1n", "t1c", "t2w", "t2f")
console = Console()


class LiteralNetwork(Prism):
    """Algorithm 1's input."""

    def stem_input(self, x: Tensor, source: Tensor) -> Tensor:
        """A source repeated over all channels of the stem."""
        return x.expand(-1, self.modalities, -1, -1, -1)


class StockNetwork(LiteralNetwork):
    """The same as MONAI and PyTorch make it by default."""

    def __init__(self, config: NetworkConfig, modalities: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(config, modalities, patch_size)
        self.backbone.memory_format = torch.contiguous_format
        self.to(memory_format=torch.contiguous_format)
        for module in self.modules():
            if isinstance(module, WindowAttention):
                module.forward = partial(MonaiWindowAttention.forward, module)


class LiteralObjective(PUIR):
    """Algorithm 1's second view."""

    def keys(self, network: Prism, views: Views, batch: Batch) -> Keys:
        """The second view through the whole network, one source after another."""
        assert self.project is not None
        own = torch.empty(len(views.owner), self.config.embedding)
        with torch.no_grad():
            for rows in self._passes(views):
                z, _, _ = network(views.second[rows], views.source[rows])
                own[rows] = self.project(pooled(z))
        return Keys(*gather_keys(own, batch.index[views.owner]))


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    network = NetworkConfig(options.network, width=options.width, levels=options.levels)
    batch = random_batch(options.batch, options.patch, options.seed)
    steps = {
        "batched": step_of(Prism, PUIR, "batched", network, batch, options),
        "sequential": step_of(Prism, PUIR, "sequential", network, batch, options),
        "literal, our network": step_of(LiteralNetwork, LiteralObjective, "sequential", network, batch, options),
        "literal": step_of(StockNetwork, LiteralObjective, "sequential", network, batch, options),
    }
    report(measure(steps, options.rounds), options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["unet", "swinunetr"], default="unet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--levels", type=int, default=4, help="of the unet")
    parser.add_argument("--patch", type=int, default=32, help="voxels along each side")
    parser.add_argument("--batch", type=int, default=2, help=f"sub-volumes, of {len(MODALITIES)} modalities each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    return parser.parse_args()


def random_batch(size: int, side: int, seed: int) -> Batch:
    """Sub-volumes with all modalities."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size, len(MODALITIES), side, side, side)
    names = [f"subject {number}" for number in range(size)]
    return Batch(
        images=torch.randn(shape, generator=generator),
        foreground=torch.rand(shape, generator=generator) > 0.3,
        present=torch.ones(shape[:2], dtype=torch.bool),
        affine=torch.eye(4, dtype=torch.float64).expand(size, 4, 4),
        label=None,
        class_label=None,
        person=names,
        subject=names,
        index=torch.arange(size),
    )


def step_of(
    network_type: type[Prism],
    objective_type: type[PUIR],
    schedule: str,
    config: NetworkConfig,
    batch: Batch,
    options: argparse.Namespace,
) -> Step:
    """One step of the optimiser, a function of the round; all begin with the same weights."""
    torch.manual_seed(options.seed)
    network = network_type(config, len(MODALITIES), (options.patch,) * 3)
    objective = objective_type(PUIRConfig(schedule=schedule), network.backbone.channels[-1], MODALITIES, options.seed)
    optimiser = torch.optim.AdamW([*network.parameters(), *objective.parameters()], lr=1e-4)

    def step(number: int) -> dict[str, Tensor]:
        optimiser.zero_grad()
        losses = objective.losses(network, batch, number, Tensor.backward)
        optimiser.step()
        return losses

    return step


def measure(steps: dict[str, Step], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by the clock and by the processor of each step; a first round is not counted but compared."""
    first = {name: step(0) for name, step in steps.items()}
    for name, losses in first.items():
        for term, value in losses.items():
            torch.testing.assert_close(value, first["literal"][term], rtol=1e-3, atol=1e-4, msg=f"{name}: {term}")
    seconds: dict[str, dict[str, list[float]]] = {name: {"clock": [], "processor": []} for name in steps}
    for number in track(range(1, rounds + 1), "measuring", console=Console(stderr=True)):
        for name, step in steps.items():
            begun = time.perf_counter(), time.process_time()
            step(number)
            seconds[name]["clock"].append(time.perf_counter() - begun[0])
            seconds[name]["processor"].append(time.process_time() - begun[1])
    return seconds


def report(seconds: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> None:
    def gain(name: str, clock: str) -> float:
        return median(a / b for a, b in zip(seconds["literal"][clock], seconds[name][clock], strict=True))

    rows = [
        {
            "step": name,
            "seconds": median(times["clock"]),
            "processor_seconds": median(times["processor"]),
            "faster_than_literal_by": gain(name, "clock"),
            "faster_by_processor": gain(name, "processor"),
            "least_gain": min(a / b for a, b in zip(seconds["literal"]["clock"], times["clock"], strict=True)),
            "largest_gain": max(a / b for a, b in zip(seconds["literal"]["clock"], times["clock"], strict=True)),
        }
        for name, times in seconds.items()
    ]
    result = {
        "benchmark": "training_step",
        "network": options.network,
        "width": options.width,
        "levels": options.levels if options.network == "unet" else None,
        "patch": [options.patch] * 3,
        "batch": options.batch,
        "modalities": len(MODALITIES),
        "rounds": options.rounds,
        "seed": options.seed,
        "rows": rows,
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
        },
        "versions": {name: version(name) for name in ("medprism", "monai", "torch", "numpy")}
        | {"python": platform.python_version()},
    }
    title = f"{options.network} {options.width}, {options.batch} x {len(MODALITIES)} patches of {options.patch}³"
    table = Table(title=f"{title}, {processor()}, {torch.get_num_threads()} thread(s)")
    for column in ("step", "s", "processor s", "faster by", "by processor s", "least", "largest"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for row in rows:
        name, *numbers = row.values()
        table.add_row(str(name), *(f"{number:.2f}" for number in numbers))
    console.print(table)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
