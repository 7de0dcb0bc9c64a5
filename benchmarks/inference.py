"""Seconds to make all modalities of a whole subject: medprism's windows, and MONAI's.

    python -m benchmarks inference --out inference.json
    python -m benchmarks inference --device cuda --network swinunetr --width 24 --patch 96 --batch 8
    python -m benchmarks inference --shape 512 512 600 --modalities 1 --rounds 0      memory alone

A phantom brain of 1 mm lies in a volume as of BraTS; larger volumes hold an ellipsoid of noise. All take the same
network (with random weights) over windows of the same size and overlap, blended by the same Gaussian, in one process:

- `monai`: `sliding_window_inference` over the volume as it is;
- `monai, box`: the same over the box of the foreground, 4 voxels wider;
- `medprism, all`: `medprism.inference.windows.slide` over all of it, without the windows that have no foreground;
- `medprism`: over the box, as the commands do;
- `medprism, bf16`: the same with `--precision bf16`;
- `medprism, ONNX Runtime`: the same windows through the graph that `medprism export` writes (with --onnx).

The largest difference inside the brain to MONAI with the same windows is checked to be below 1e-4 (but for bf16, of
which it is told).
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from benchmarks.common import Seconds, alternate, parser, peak_gigabytes, publish, ratios
from medprism.inference.device import Runner
from medprism.inference.windows import slide
from medprism.models.prism import NetworkConfig, Prism
from medprism.phantoms.brain import brain_subject
from medprism.training.memory import keep_freed_memory

Whole = Callable[[], Tensor]
Make = Callable[[Tensor, Tensor], Tensor]
OVERLAP, MARGIN = 0.5, 4  # the share of a window, and voxels around the foreground, that the commands take


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    images, brain = subject(options)
    torch.manual_seed(options.seed)
    config = NetworkConfig(options.network, width=options.width, levels=options.levels)
    network = Prism(config, options.modalities, (options.patch,) * 3)
    ways = made(network, images, brain, options)
    differences: dict[str, float] = {}
    if options.rounds:
        differences = compared({name: way() for name, way in ways.items()}, brain)
        seconds = alternate(ways, options.rounds, options.device)
    else:
        before = peak_gigabytes()
        ways["medprism"]()
        print(f"{peak_gigabytes():.1f} GB at most, {before:.1f} before")
        seconds = {}
    shape = "×".join(map(str, options.shape))
    columns = {"way": "", "seconds": ".1f", "faster_by": ".2f", "least": ".2f", "largest": ".2f"}
    title = f"{shape}, {options.modalities} scans, {options.network} {options.width}, windows of {options.patch}³"
    facts = {"brain_share": float(brain.float().mean()), "peak_gigabytes": peak_gigabytes()}
    publish("inference", options, rows_of(seconds, differences), title, columns | {"difference": ".1e"}, **facts)


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=3)
    options.add_argument("--shape", type=int, nargs=3, default=[240, 240, 155], help="voxels of 1 mm")
    options.add_argument("--modalities", type=int, default=4)
    options.add_argument("--network", choices=["unet", "swinunetr"], default="unet")
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--levels", type=int, default=4, help="of the unet")
    options.add_argument("--patch", type=int, default=64, help="voxels along each side of a window")
    options.add_argument("--batch", type=int, default=1, help="windows at once, of all ways")
    options.add_argument("--device", default="cpu")
    options.add_argument("--onnx", action="store_true", help="ONNX Runtime too")
    return options.parse_args()


def subject(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Images (M, X, Y, Z), zero outside of the brain (X, Y, Z)."""
    shape = tuple(options.shape)
    images, brain = torch.zeros(options.modalities, *shape), torch.zeros(shape, dtype=torch.bool)
    if options.modalities <= 4 and max(shape) <= 256:
        made = list(brain_subject(options.seed, 0, spacing=1.0).images.values())
        scans = torch.stack([torch.from_numpy(image) for image in made[: options.modalities]])
        inner, outer = zip(*(overlap(*sides) for sides in zip(scans.shape[1:], shape, strict=True)), strict=True)
        images[:, *outer] = scans[:, *inner]
        brain = images[0] > 0
    else:
        axes = [torch.linspace(-1, 1, side) ** 2 for side in shape]
        brain = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None] < 0.1
        generator = torch.Generator().manual_seed(options.seed)
        images[:, brain] = torch.randn(options.modalities, int(brain.sum()), generator=generator)
    spread = images[:, brain].std(dim=1)
    return images / spread[:, None, None, None], brain


def overlap(have: int, want: int) -> tuple[slice, slice]:
    """Where the middles of two sides lie in each other."""
    size = min(have, want)
    return slice((have - size) // 2, (have + size) // 2), slice((want - size) // 2, (want + size) // 2)


def made(network: Prism, images: Tensor, brain: Tensor, options: argparse.Namespace) -> dict[str, Whole]:
    """The ways, by name."""
    device, present = torch.device(options.device), torch.ones(len(images), dtype=torch.bool)
    patch, runner = (options.patch,) * 3, Runner(network, device)

    @torch.inference_mode()
    def theirs(images: Tensor) -> Tensor:
        return sliding_window_inference(
            images[None].to(device),
            patch,
            options.batch,
            lambda windows: network.generate(windows, present.to(device).expand(len(windows), -1)),
            overlap=OVERLAP,
            mode="gaussian",
        )[0].cpu()

    def ours(make: Make, images: Tensor, brain: Tensor) -> Tensor:
        return slide(make, images, present, patch, overlap=OVERLAP, batch=options.batch, foreground=brain)

    def boxed(make: Make) -> Whole:
        def whole() -> Tensor:
            places = brain.nonzero()
            low = (places.amin(0) - MARGIN).clamp(min=0).tolist()
            box = tuple(slice(a, b) for a, b in zip(low, (places.amax(0) + MARGIN + 1).tolist(), strict=True))
            out = torch.zeros_like(images)
            out[:, *box] = make(images[:, *box].contiguous(), brain[box])
            return out

        return whole

    half = Runner(network, device, "bf16")
    runner.batch = half.batch = options.batch
    ways: dict[str, Whole] = {
        "medprism": boxed(partial(ours, runner.generate)),
        "medprism, bf16": boxed(partial(ours, half.generate)),
        "medprism, all": lambda: ours(runner.generate, images, brain),
        "monai, box": boxed(lambda images, _: theirs(images)),
        "monai": lambda: theirs(images),
    }
    return ways | ({"medprism, ONNX Runtime": boxed(partial(ours, graph_of(network)))} if options.onnx else {})


def graph_of(network: Prism) -> Callable[[Tensor, Tensor], Tensor]:
    """The network as `medprism export` writes it, run by ONNX Runtime."""
    from medprism.export.graphs import traceable
    from medprism.export.onnx_file import session, write
    from medprism.export.onnx_folder import OUTPUTS

    traced = traceable(network, "transfer", OUTPUTS)
    examples = {"images": torch.zeros(2, *traced.shape), "present": torch.ones(2, traced.shape[0], dtype=torch.bool)}
    with tempfile.TemporaryDirectory() as folder:
        write(traced.graph, examples, traced.output, Path(folder) / "model.onnx")
        opened = session(Path(folder) / "model.onnx")

    def generate(windows: Tensor, present: Tensor) -> Tensor:
        [found] = opened.run(None, {"images": windows.numpy(), "present": present.numpy()})
        return torch.from_numpy(found)

    return generate


def compared(first: dict[str, Tensor], brain: Tensor) -> dict[str, float]:
    """The largest difference inside the brain to MONAI with the same windows, in parts of the largest value there."""
    scale = float(first["monai"][:, brain].abs().max())
    same = {name: first["monai" if name in ("monai", "medprism, all") else "monai, box"] for name in first}
    found = {name: float((each - same[name])[:, brain].abs().max()) / scale for name, each in first.items()}
    for name, difference in found.items():
        assert math.isfinite(difference), name
        assert difference < 1e-4 or name.endswith("bf16"), (name, difference)
    return found


def rows_of(seconds: Seconds, differences: dict[str, float]) -> list[dict[str, object]]:
    """Of each way, beside MONAI's."""
    return [
        {
            "way": name,
            "seconds": median(times["clock"]),
            **ratios(seconds["monai"]["clock"], times["clock"]),
            "difference": differences[name],
        }
        for name, times in seconds.items()
    ]


if __name__ == "__main__":
    main()
