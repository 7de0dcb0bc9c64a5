"""Random numbers of many samples at once, on their device: a hash of (key of the sample, number of the draw).

`randomness.torch_rng` makes a generator for each sample, which runs on the CPU and one after the other. Here a draw is
SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA) of the sample's key
and a counter, so that all draws of all samples are one expression: the same numbers on every device, whichever samples
are in the batch, and no draw depends on how many others are made. As with `randomness`, the key is a function of
(seed, epoch, sample index, purpose).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medprism.data.randomness import digest


def sample_keys(seed: int, keys: Sequence[tuple[int | str, ...]], device: torch.device | str = "cpu") -> Tensor:
    """One 64-bit number (N,) for each key, see `randomness.digest`."""
    return torch.tensor([_signed(digest(seed, *key)) for key in keys], dtype=torch.int64, device=device)


def random_bits(keys: Tensor, count: int) -> Tensor:
    """The first `count` draws of each key.

    Args:
        keys: (N,) of `sample_keys`.
        count: K.

    Returns:
        (N, K) int64, all 64 bits random; the draws of one key are all different.
    """
    counter = torch.arange(1, count + 1, device=keys.device)
    x = keys[:, None] + counter * _signed(0x9E3779B97F4A7C15)  # wraps round, as all products here
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def random_normal(keys: Tensor, count: int) -> Tensor:
    """The first `count` standard normal draws (N, K) float32 of each key, two of each 64 bits (Box and Muller 1958)."""
    bits = random_bits(keys, (count + 1) // 2)
    radius = _uniform(_shifted(bits, 32)).log().mul(-2).sqrt()
    angle = _uniform(bits & 0xFFFFFFFF).mul(2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def _uniform(bits: Tensor) -> Tensor:
    """32 random bits as float32 above 0 and at most 1."""
    return (bits.float() + 0.5).mul(2.0**-32)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros from the left as if without sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The lowest 64 bits as torch holds them."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
