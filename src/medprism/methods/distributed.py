"""The few collective operations that a method needs; each is the identity on one process."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of training processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes, of which each may have another number.

    Args:
        rows: (N, ...) of this process; no gradient flows back.

    Returns:
        (sum of N, ...) in order of rank, and the index of this process's first row.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows, 0
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    numbers = [int(count) for count in counts]
    padded = rows.new_zeros((max(numbers), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in numbers]
    dist.all_gather(parts, padded)
    merged = torch.cat([part[:number] for part, number in zip(parts, numbers, strict=True)])
    return merged, sum(numbers[: dist.get_rank()])


def total(value: float, device: torch.device) -> float:
    """Sum of a number over all processes."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float32, device=device)
    dist.all_reduce(tensor)
    return float(tensor)


def summed(values: Tensor) -> Tensor:
    """Sum over all processes, of which a loss is made that is no mean over samples, such as Dice.

    Args:
        values: of this process, any shape, the same in all.

    Returns:
        The sum, the same in all processes. Gradients flow back to this process's values, times the number of processes,
        as DistributedDataParallel takes their mean: together they are the gradients of one process with all samples.
    """
    if world_size() == 1:
        return values
    everywhere = values.detach().clone()
    dist.all_reduce(everywhere)
    return everywhere + world_size() * (values - values.detach())


def mean(values: Tensor) -> Tensor:
    """The mean of the values (N,) of all processes, each of which may have another N; gradients as of `summed`."""
    total, count = summed(torch.stack([values.sum(), values.new_tensor(len(values))])).unbind()
    return total / count


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all processes, for steps whose number of backward passes differs between them.

    A parameter without gradient in all processes keeps none, so that an optimiser leaves it alone as it does on one.
    """
    if world_size() == 1:
        return
    parameters = list(parameters)
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(used)
    for parameter, processes in zip(parameters, used.tolist(), strict=True):
        if not processes:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()
