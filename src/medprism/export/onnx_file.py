"""Writing graphs as ONNX files, and running them as others will, to see that they say what the network says."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medprism._optional import require
from medprism.data.randomness import torch_rng
from medprism.errors import UserError
from medprism.export.graphs import Traceable
from medprism.inference.progress import bar

OPSET = 18  # of 2022, which every runtime of today knows
LARGEST = 1_500_000_000  # bytes of weights in the file itself; protocol buffers end at 2 GiB
TOLERANCE = 1e-3
MOST = 31
"""Subsets that are compared: all of up to five modalities; of more, those with few or with nearly all of the scans."""


@dataclass(frozen=True)
class Agreement:
    """How far a graph is from its network.

    Attributes:
        absolute: largest difference of any output.
        relative: the same over the largest output.
        subsets: number of subsets of scans that were compared.
    """

    absolute: float
    relative: float
    subsets: int


def write(graph: nn.Module, examples: dict[str, Tensor], output: str, path: Path) -> None:
    """Trace a module and write it as ONNX; the first axis of all inputs and of the output may have any length.

    Args:
        graph: in evaluation mode.
        examples: input -> a tensor for it, of 2 rows.
        output: name of the output.
        path: `.onnx`; weights of many gigabytes go to a file beside it.

    Raises:
        UserError: the exporter's packages are not installed, or it cannot write this network.
    """
    for package in ("onnx", "onnxscript"):
        require(package, extra="onnx")
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                tuple(examples.values()),
                dynamo=True,
                dynamic_shapes=tuple({0: batch} for _ in examples),
                input_names=list(examples),
                output_names=[output],
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            held = [value.const_value for value in program.model.graph.initializers.values()]
            size = sum(tensor.nbytes for tensor in held if tensor is not None)  # weights, and what was precomputed
            program.save(path, external_data=size > LARGEST)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the exporter makes of an operation that it does not know
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"expected a network that ONNX can hold, the exporter refused it ({type(error).__name__}: {reason}); "
            "give --format bundle"
        ) from error


def session(path: Path) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """A graph in ONNX Runtime on the CPU.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    runtime = require("onnxruntime", extra="onnx")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def compared(path: Path, traced: Traceable) -> Agreement:
    """Run a written graph and its network on random windows, with every subset of scans that the network serves.

    What is absent is NaN for the graph. Windows go in alone, then two at once.

    Args:
        path: of the graph.
        traced: what it was made from.

    Raises:
        UserError: they differ by more than a thousandth of the largest output, or ONNX Runtime refuses the graph.
    """
    running, rows = session(path), chosen(traced.subsets, traced.shape[0])
    differences, largest = [0.0], 0.0
    with bar("comparing", len(rows)) as progress:
        for present in rows:
            images = torch.randn(len(present), *traced.shape, generator=torch_rng(0, "export", repr(present)))
            here = torch.tensor(present)
            wanted = eager(traced, images.masked_fill(~here[:, :, None, None, None], 0.0), here)
            images[~here] = torch.nan
            [got] = running.run(None, {"images": images.numpy(), "present": here.numpy()})
            differences.append(float(np.abs(got - wanted).max()))
            largest = max(largest, float(np.abs(wanted).max()))
            progress.next()
    absolute = float(np.max(differences))  # of NaN, too
    return agreed(Agreement(absolute, absolute / max(largest, 1e-12), min(len(rows), len(traced.subsets))), path.name)


def agreed(found: Agreement, name: str) -> Agreement:
    """The same, if it is close enough.

    Raises:
        UserError: it is not.
    """
    if not found.relative <= TOLERANCE:
        raise UserError(
            f"expected {name} to be within {TOLERANCE:g} of the network, got a relative difference of "
            f"{found.relative:.2g}; nothing was written: give --format bundle, and report the model's architecture"
        )
    return found


def eager(traced: Traceable, images: Tensor, present: Tensor) -> NDArray[np.float32]:
    """What the network itself says of windows (B, M, X, Y, Z)."""
    with torch.inference_mode():
        made: Tensor = getattr(traced.network, traced.eager)(images, present)
    array: NDArray[np.float32] = made.float().numpy()
    return array


def chosen(subsets: Sequence[tuple[int, ...]], modalities: int) -> list[list[list[bool]]]:
    """Rows of `present` (B, M) to compare with: each subset alone, and the first two in one batch.

    Args:
        subsets: all that the network serves, smaller ones first.
        modalities: M.
    """
    some = list(subsets)
    if len(some) > MOST:
        some = [*some[: MOST // 2], *some[-(MOST - MOST // 2) :]]
    rows = [[place in subset for place in range(modalities)] for subset in some]
    both = [list(pair) for pair in pairwise(rows)][:1] or [[rows[0], rows[0]]]
    return [*([row] for row in rows), *both]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
