"""Activations that are computed again in the backward pass instead of being held (Chen et al. 2016).

Most of a 3-D network's memory in training are the maps at full resolution. A part that goes through `recomputed` keeps
only what enters it; its inner maps are made anew when their gradients are needed (https://arxiv.org/abs/1604.06174).
Numbers, gradients and parameters' names are those without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medprism.errors import UserError


def spare_memory(network: nn.Module) -> None:
    """Have all backbones in a network compute their parts at full resolution again; with attention its blocks, too.

    Raises:
        UserError: there is none that can.
    """
    able: list[Any] = [module for module in network.modules() if hasattr(module, "spares_memory")]
    if not able:
        raise UserError(
            f"expected a network with one of the backbones of --network for compute.checkpointing, got "
            f"{type(network).__name__}; leave it out, and take smaller patches.size"
        )
    for module in able:
        module.spares_memory = True


def recomputed(backbone: nn.Module, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """What a part of a backbone makes of its inputs; in training its inner maps are not held, if so wanted.

    Args:
        backbone: its `spares_memory` says what is wanted.
        part: without random draws and without running statistics, as it is run twice.
        inputs: of the part.
    """
    if backbone.spares_memory and backbone.training and torch.is_grad_enabled():
        made: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
        return made
    return part(*inputs)
