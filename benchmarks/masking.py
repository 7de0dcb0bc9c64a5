"""Seconds for the masks of a batch: all at once, and by a loop over blocks in Python.

    python -m benchmarks masking --out masking.json
    python -m benchmarks masking --device cuda --batch 32

For both kinds of mask the same masks are made twice, from the same random numbers, which is checked:

- `grid`: an exact share of the blocks of a grid; the loop takes one block after another;
- `cubes`: cubes around random voxels until the share is reached; the loop counts what each cube newly hides.

Rows are `mask`, the masks alone, and `fill`, the masks and the batch with its hidden voxels replaced by another scan;
the loop over a grid then copies block by block and needs no mask, as published code does. Both ways alternate within
a round, and the medians over rounds of seconds and of ratios within a round are reported, as other work on the machine
comes and goes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import alternate, parser, publish, ratios
from medprism.data.counter import random_bits, sample_keys
from medprism.methods.masking import Masking
from medprism.training.memory import keep_freed_memory


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows = [row for kind in ("grid", "cubes") for row in compare(Masking(kind, options.ratio, options.block), options)]
    title = f"{options.batch} masks of {options.patch}³ in blocks of {options.block}³, {options.ratio:.1%} hidden"
    columns = {
        "kind": "",
        "what": "",
        "loop_ms": ".1f",
        "ms": ".1f",
        "faster_by": ".1f",
        "least": ".1f",
        "largest": ".1f",
    }
    publish("masking", options, rows, title, columns)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, rounds=15)
    made.add_argument("--batch", type=int, default=8)
    made.add_argument("--patch", type=int, default=96, help="voxels along each side")
    made.add_argument("--block", type=int, default=8, help="voxels along each side of a block")
    made.add_argument("--ratio", type=float, default=0.875)
    made.add_argument("--device", default="cpu")
    return made.parse_args()


def compare(masking: Masking, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for the masks alone, and one for masks and filling."""
    size, device = (options.patch,) * 3, torch.device(options.device)
    keys = [("benchmark", number) for number in range(options.batch)]
    generator = torch.Generator().manual_seed(options.seed)
    images, others = (torch.randn(options.batch, 1, *size, generator=generator).to(device) for _ in range(2))
    loop = blocks_one_by_one if masking.kind == "grid" else cubes_one_by_one

    def at_once() -> Tensor:
        return masking(size, options.seed, keys, device)

    def by_loop() -> Tensor:
        mask = torch.zeros(options.batch, 1, *size, dtype=torch.bool, device=device)
        return loop(mask, torch.ones_like(mask), masking, sample_keys(options.seed, keys, device))

    def fill_at_once() -> Tensor:
        return torch.where(at_once(), others, images)

    def fill_by_loop() -> Tensor:
        if masking.kind == "cubes":
            return torch.where(by_loop(), others, images)
        return loop(images.clone(), others, masking, sample_keys(options.seed, keys, device))

    return [
        {"kind": masking.kind, "what": what, **measure({"loop": slow, "at once": fast}, options)}
        for what, fast, slow in (("mask", at_once, by_loop), ("fill", fill_at_once, fill_by_loop))
    ]


def blocks_one_by_one(batch: Tensor, filling: Tensor, masking: Masking, keys: Tensor) -> Tensor:
    """Blocks of a batch (N, 1, X, Y, Z) replaced in place by those of another."""
    block, sides = masking.block, [side // masking.block for side in batch.shape[2:]]
    blocks = math.prod(sides)
    hidden = blocks - math.floor(blocks * (1 - masking.ratio) + 1e-6)
    for row, order in enumerate(random_bits(keys, blocks).argsort(dim=1).tolist()):
        for number in order[:hidden]:
            x, y, z = number // (sides[1] * sides[2]), number // sides[2] % sides[1], number % sides[2]
            place = (row, 0, *(slice(n * block, (n + 1) * block) for n in (x, y, z)))
            batch[place] = filling[place]
    return batch


def cubes_one_by_one(batch: Tensor, filling: Tensor, masking: Masking, keys: Tensor) -> Tensor:
    """Cubes of a batch of masks (N, 1, X, Y, Z) set in place, until enough is."""
    size = batch.shape[2:]
    wanted = math.ceil(math.prod(size) * masking.ratio - 1e-6)
    draws = 4 * math.prod(size) // masking.block**3 + 8
    for row, bits in enumerate(random_bits(keys, draws).tolist()):
        covered = 0
        for draw in bits:
            if covered >= wanted:
                break
            voxel = (draw & ((1 << 62) - 1)) % math.prod(size)
            centre = (voxel // (size[1] * size[2]), voxel // size[2] % size[1], voxel % size[2])
            starts = [place - masking.block // 2 for place in centre]
            cube = batch[(row, 0, *(slice(max(0, start), start + masking.block) for start in starts))]
            covered += cube.numel() - int(cube.sum())
            cube[:] = True
    return batch


def measure(ways: dict[str, Callable[[], Tensor]], options: argparse.Namespace) -> dict[str, float]:
    """Medians over rounds; a first round is not counted but compared."""
    if not torch.equal(*(way() for way in ways.values())):
        raise AssertionError("the two ways differ")
    loop, fast = (times["clock"] for times in alternate(ways, options.rounds, options.device).values())
    return {"loop_ms": 1000 * median(loop), "ms": 1000 * median(fast), **ratios(loop, fast)}


if __name__ == "__main__":
    main()
