"""How much a prediction depends on what should not matter: which of the scans it was made from, and how they lay."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# (M, X, Y, Z) images, (M,) present, (X, Y, Z) foreground -> (M, X, Y, Z)
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def spread(predict: Predict, images: Tensor, present: Tensor, foreground: Tensor, *, quarters: bool = True) -> Tensor:
    """Standard deviation over predictions from each given scan alone, each in all rotations of the X-Y plane.

    A scan is rotated, the prediction rotated back, so a network that is equivariant and, between the sources,
    invariant has no spread. It is a lower bound of the error: what all sources lack, no spread shows.

    Args:
        predict: makes all modalities of a volume.
        images: (M, X, Y, Z) normalised.
        present: (M,) bool, the given scans.
        foreground: (X, Y, Z) bool of all given scans together, rotated along.
        quarters: rotate by 0, 90, 180 and 270 degrees; else (patches of unequal sides) by 0 and 180.

    Returns:
        (M, X, Y, Z) float32, of all sources times all rotations (divided by their number, not one less).
    """
    mean = torch.zeros_like(images)
    squares = torch.zeros_like(images)
    for number, (source, turns) in enumerate(views(present, quarters=quarters), start=1):
        turned = predict(_turned(images, turns), source, _turned(foreground, turns))
        made = _turned(turned, -turns)
        # Welford: the sum of squares would lose all digits where the spread is small.
        change = made - mean
        mean += change / number
        squares += change * (made - mean)
    return (squares / number).clamp(min=0).sqrt()


def views(present: Tensor, *, quarters: bool = True) -> Iterator[tuple[Tensor, int]]:
    """The sources (M,) bool, one at a time, and quarter turns that `spread` is taken over."""
    for index in present.nonzero()[:, 0].tolist():
        source = torch.zeros_like(present)
        source[index] = True
        for turns in range(0, 4, 1 if quarters else 2):
            yield source, turns


def _turned(volume: Tensor, turns: int) -> Tensor:
    return torch.rot90(volume, turns, dims=(-3, -2))
