"""Seconds a step of PUIR's pre-training: as medprism does it, and Algorithm 1 to the letter.

    python -m benchmarks training_step --out training_step.json
    python -m benchmarks training_step --network swinunetr --width 12 --patch 64

All train the same network on the same batch, with views, backward pass and optimiser step, and get the same losses,
which is checked (those in bf16 about the same):

- `literal`: one source after another, repeated to M channels; the second view takes the whole network too, without
  gradient. The network is MONAI's and PyTorch's default, in float32.
- `literal, our network`: the same with the memory format and the attention of medprism's networks.
- `sequential`: one source after another through a stem of one channel; the second view stops at the bottleneck.
- `batched`: as `sequential`, all sources in one pass.
- `batched, bf16`: with automatic mixed precision, `--compute.precision bf16`; `literal, bf16` is what that alone gives.

Beside the seconds stands the share of the processor's time that the convolutions and products of matrices would take
at the speed of a large product or a wide convolution, measured before: the floor of a step over the step.

They alternate within a round, and the medians over rounds of seconds and of ratios within a round are reported, as
other work on the machine comes and goes. Seconds of the processor are less disturbed by it, with one thread hardly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from monai.networks.nets.swin_unetr import WindowAttention as MonaiWindowAttention
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Seconds, alternate, parser, publish, ratios, roof
from medprism.data.batch import Batch
from medprism.methods.contrast import gather_keys
from medprism.methods.puir import PUIR, Keys, PUIRConfig, Views
from medprism.models.backbone import pooled
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.window_attention import WindowAttention
from medprism.training.memory import keep_freed_memory

Step = Callable[[], dict[str, Tensor]]
MODALITIES = ("t1n", "t1c", "t2w", "t2f")
ROUGH = {"rtol": 0.1, "atol": 0.05}
"""How near losses in bf16 are to those in float32."""


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
                own[rows] = self.project(pooled(z)).float()
        return Keys(*gather_keys(own, batch.index[views.owner]))


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    network = NetworkConfig(options.network, width=options.width, levels=options.levels)
    batch = random_batch(options.batch, options.patch, options.seed)
    made = partial(step_of, network=network, batch=batch, options=options)
    steps = {
        "batched, bf16": made(Prism, PUIR, "batched", bf16=True),
        "batched": made(Prism, PUIR, "batched"),
        "sequential": made(Prism, PUIR, "sequential"),
        "literal, our network": made(LiteralNetwork, LiteralObjective, "sequential"),
        "literal, bf16": made(StockNetwork, LiteralObjective, "sequential", bf16=True),
        "literal": made(StockNetwork, LiteralObjective, "sequential"),
    }
    compare({name: step() for name, step in steps.items()})
    flop = {name: operations(step) for name, step in steps.items()}
    speed = {bf16: roof(torch.bfloat16 if bf16 else torch.float32) for bf16 in (False, True)}
    title = f"{options.network} {options.width}, {options.batch} x {len(MODALITIES)} patches of {options.patch}³"
    columns = {"step": "", "seconds": ".2f", "processor_seconds": ".2f", "faster_by": ".2f", "least": ".2f"}
    columns |= {"largest": ".2f", "faster_by_processor": ".2f", "gflop": ".0f", "floor": ".2f"}
    publish("training_step", options, rows_of(alternate(steps, options.rounds), flop, speed), title, columns)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    made.add_argument("--network", choices=["unet", "swinunetr"], default="unet")
    made.add_argument("--width", type=int, default=16)
    made.add_argument("--levels", type=int, default=4, help="of the unet")
    made.add_argument("--patch", type=int, default=32, help="voxels along each side")
    made.add_argument("--batch", type=int, default=2, help=f"sub-volumes, of {len(MODALITIES)} modalities each")
    return made.parse_args()


def compare(first: dict[str, dict[str, Tensor]]) -> None:
    """Stop if a way computes something else than the literal one."""
    for name, losses in first.items():
        near = ROUGH if name.endswith("bf16") else {"rtol": 1e-3, "atol": 1e-4}
        for term, value in losses.items():
            wanted = first["literal"][term]
            torch.testing.assert_close(value.float(), wanted, **near, msg=f"{name}: {term} {value} {wanted}")


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
    *,
    network: NetworkConfig,
    batch: Batch,
    options: argparse.Namespace,
    bf16: bool = False,
) -> Step:
    """One step of the optimiser; all begin with the same weights."""
    torch.manual_seed(options.seed)
    model = network_type(network, len(MODALITIES), (options.patch,) * 3)
    objective = objective_type(PUIRConfig(schedule=schedule), model.backbone.channels[-1], MODALITIES, options.seed)
    optimiser = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=1e-4)

    def step() -> dict[str, Tensor]:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = objective.losses(model, batch, 0, Tensor.backward)
        optimiser.step()
        return losses

    return step


def operations(step: Step) -> int:
    """Floating point operations of convolutions and products of matrices, 2 per multiply-add."""
    with FlopCounterMode(display=False) as counted:
        step()
    return int(counted.get_total_flops())


def rows_of(seconds: Seconds, flop: dict[str, int], speed: dict[bool, float]) -> list[dict[str, object]]:
    """Of each step, beside the literal one."""
    literal = seconds["literal"]
    return [
        {
            "step": name,
            "seconds": median(times["clock"]),
            "processor_seconds": median(times["processor"]),
            **ratios(literal["clock"], times["clock"]),
            "faster_by_processor": ratios(literal["processor"], times["processor"])["faster_by"],
            "gflop": flop[name] / 1e9,
            "floor": flop[name] / speed["bf16" in name] / median(times["processor"]),
        }
        for name, times in seconds.items()
    ]


if __name__ == "__main__":
    main()
