"""What one step, and one subject, costs in operations and memory: exact counts, which no other load disturbs.

    python -m benchmarks counts                     print them beside those in benchmarks/counts.json
    python -m benchmarks counts --out counts.json   write them there

Counted on small networks with one thread: floating point operations (2 per multiply-add, of convolutions and matrix
products), calls of PyTorch's operators, bytes that are allocated in all, and the most that are held at once above what
was held before. A test compares them with the file, so that a change that makes a step dearer is seen when it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Way, parser, publish
from benchmarks.training_step import MODALITIES, random_batch
from medprism.inference.windows import slide
from medprism.io.grid import Grid
from medprism.methods.brainmvp import BrainMVP, BrainMVPConfig
from medprism.methods.puir import PUIR, PUIRConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.templates import Templates

FILE = Path(__file__).with_name("counts.json")
Method = Callable[[NetworkConfig, int], tuple[Prism, "PUIR | BrainMVP"]]
COLUMNS = ("flop", "operators", "allocated_bytes", "peak_bytes")


def main() -> None:
    options = parser(__doc__, rounds=1).parse_args()
    kept = (
        {row["what"]: row for row in json.loads(FILE.read_text())["rows"]} if FILE.exists() and not options.out else {}
    )
    rows = measure()
    for row in rows:
        for column in COLUMNS if row["what"] in kept else ():
            row[f"{column}_change"] = int(row[column]) / kept[str(row["what"])][column] - 1
    columns = {"what": ""}
    for column in COLUMNS:
        columns |= {column: ".4g", **({f"{column}_change": "+.1%"} if kept else {})}
    publish("counts", options, rows, "counts", columns)


def measure() -> list[dict[str, object]]:
    """All that is counted."""
    with one_thread():
        return [{"what": name, **count(make())} for name, make in CASES.items()]


@contextmanager
def one_thread() -> Iterator[None]:
    """With more, convolutions are cut in other ways and take other temporary memory."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count(way: Way) -> dict[str, int]:
    """FLOP, operators and bytes of one call; it is called before, as the first allocates what stays."""
    way()
    with FlopCounterMode(display=False) as flop:
        way()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        way()
    assert seen.profiler is not None
    events = seen.profiler.kineto_results.events()
    held = peak = allocated = 0
    for size in (event.nbytes() for event in events if event.name() == "[memory]"):
        held += size
        peak, allocated = max(peak, held), allocated + max(size, 0)
    operators = sum(event.count for event in seen.key_averages() if event.key.startswith("aten::"))
    counted = (flop.get_total_flops(), operators, allocated, peak)
    return dict(zip(COLUMNS, counted, strict=True))


def puir(network: NetworkConfig, side: int) -> tuple[Prism, PUIR]:
    """A network and its objective, as they are trained."""
    model = Prism(network, len(MODALITIES), (side,) * 3)
    return model, PUIR(PUIRConfig(schedule="batched"), model.backbone.channels[-1], MODALITIES, 0)


def brainmvp(network: NetworkConfig, side: int) -> tuple[Prism, BrainMVP]:
    """Likewise; its templates lie where the crops do."""
    model = Prism(network, len(MODALITIES), (side,) * 3, outputs=0)
    templates = Templates(MODALITIES, Grid((side,) * 3, np.eye(4)))
    return model, BrainMVP(BrainMVPConfig(contrast_from=0), model, templates, MODALITIES, 1, 0)


def step_of(method: Method, network: NetworkConfig, side: int) -> Callable[[], Way]:
    """A step of the optimiser with 2 sub-volumes of all modalities."""

    def make() -> Way:
        torch.manual_seed(0)
        model, objective = method(network, side)
        batch = random_batch(2, side, 0)
        optimiser = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=1e-4)

        def step() -> None:
            optimiser.zero_grad()
            objective.losses(model, batch, 0, Tensor.backward)
            optimiser.step()

        return step

    return make


def swinunetr() -> Way:
    """What a network with attention takes; its windows and their masks too."""
    torch.manual_seed(0)
    model = Prism(NetworkConfig("swinunetr", width=12), len(MODALITIES), (64, 64, 64))
    x, source = torch.randn(1, 1, 64, 64, 64), torch.zeros(1, dtype=torch.int64)

    def both_ways() -> None:
        _, _, made = model(x, source)
        made.sum().backward()

    return both_ways


def synthesis() -> Way:
    """A ball with two scans of four, all modalities made of them."""
    torch.manual_seed(0)
    model = Prism(NetworkConfig("unet", width=8, levels=3), len(MODALITIES), (32, 32, 32)).eval()
    axis = torch.linspace(-1, 1, 64)
    ball = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2 < 0.4
    images = torch.where(ball, torch.randn(len(MODALITIES), 64, 64, 64), 0.0)
    present = torch.tensor([True, False, True, False])

    @torch.inference_mode()
    def whole() -> None:
        slide(model.generate, images, present, (32, 32, 32), batch=4, foreground=ball)

    return whole


CASES: dict[str, Callable[[], Way]] = {
    "PUIR, U-Net 8, 2 x 4 patches of 24": step_of(puir, NetworkConfig("unet", width=8, levels=3), 24),
    "SwinUNETR 12, forward and backward, a patch of 64": swinunetr,
    "BrainMVP, U-Net 8, 2 x 4 patches of 24": step_of(
        brainmvp, NetworkConfig("unet", width=8, levels=3, prior="none"), 24
    ),
    "synthesis, U-Net 8, a ball in 64": synthesis,
}
"""Name -> what makes the way that is counted."""


if __name__ == "__main__":
    main()
