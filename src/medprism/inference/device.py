"""Where a network runs, and what happens when the memory there is not enough."""

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from medprism.errors import UserError

logger = logging.getLogger(__name__)

Precision = Literal["32", "bf16"]


def choose_device(name: str) -> torch.device:
    """The device that is meant by `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UserError: there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"medprism has not been tried on {device.type}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"expected a device (auto, cpu, cuda, cuda:1, mps), got {name!r}: {reason}; use auto"
        ) from error
    return device


class Runner:
    """A network on a device: windows in and out on the CPU, fewer at once when memory runs out, at last on the CPU.

    Attributes:
        device: where the network is; becomes the CPU once a single window did not fit.
        batch: windows at once; is halved each time that they did not fit.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision = "32") -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.device, self.precision = device, precision
        self.batch = 1 if device.type == "cpu" else 8

    def generate(self, images: Tensor, present: Tensor) -> Tensor:
        """(B, M, X, Y, Z) windows and (B, M) present to all modalities (B, M, X, Y, Z), float32 on the CPU."""
        return self._run("generate", images, present)

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """(B, M, X, Y, Z) windows and (B, M) present to one vector per scan (B, M, C), float32 on the CPU."""
        return self._run("embed", images, present)

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """(B, M, X, Y, Z) windows and (B, M) present to logits of classes (B, K, X, Y, Z), float32 on the CPU."""
        return self._run("segment", images, present)

    def features(self, images: Tensor, present: Tensor) -> Tensor:
        """(B, M, X, Y, Z) windows and (B, M) present to one vector per window (B, C), float32 on the CPU."""
        return self._run("features", images, present)

    def head(self, features: Tensor) -> Tensor:
        """Vectors (B, C) to logits of whole-subject classes (B, K), float32 on the CPU."""
        with torch.inference_mode():
            logits: Tensor = self.network.head(features.to(self.device))  # type: ignore[operator]
            return logits.float().cpu()

    def _run(self, what: str, images: Tensor, present: Tensor) -> Tensor:
        if self.batch < len(images):
            parts = [slice(first, first + self.batch) for first in range(0, len(images), self.batch)]
            return torch.cat([self._run(what, images[part], present[part]) for part in parts])
        try:
            return self._once(what, images, present)
        except torch.OutOfMemoryError:
            if self.device.type == "cpu":
                raise
        # After the except block, so that the traceback no longer keeps the failed pass in memory.
        torch.cuda.empty_cache()
        if len(images) > 1:
            self.batch = len(images) // 2
            logger.warning("%s is out of memory: going on with %d windows at once", self.device, self.batch)
        else:
            logger.warning("one window does not fit into the memory of %s: going on with the CPU", self.device)
            self.device, self.batch = torch.device("cpu"), 1
            self.network.to(self.device)
        return self._run(what, images, present)

    def _once(self, what: str, images: Tensor, present: Tensor) -> Tensor:
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), half:
            made: Tensor = getattr(self.network, what)(images.to(self.device), present.to(self.device))
            return made.float().cpu()
