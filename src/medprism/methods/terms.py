"""From the terms of an objective to its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def weighted(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], backward: Callable[[Tensor], None] | None
) -> dict[str, Tensor]:
    """The weighted sum `loss`, and the terms as they are.

    Args:
        terms: scalars.
        weights: of the terms; 1 for those that are not named.
        backward: is called on the loss, if given; everything is detached then.
    """
    loss = torch.stack([weights.get(name, 1.0) * value for name, value in terms.items()]).sum()
    made = {"loss": loss, **terms}
    if backward is not None:
        backward(loss)
        made = {name: value.detach() for name, value in made.items()}
    return made
