"""Random numbers as a function of a seed and a key, never of a worker, a rank or the order of calls.

The key says what the numbers are for, e.g. `rng(seed, "crop", epoch, index)`. Two keys that differ anywhere give
independent streams; the same key gives the same stream on any machine. Nothing here touches a global generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the phantoms and the cohort tools draw numbers without waiting for torch to be imported
    import torch


def digest(seed: int, *key: int | str) -> int:
    """The 256-bit number that a seed and a key stand for.

    Args:
        seed: The seed of the run.
        *key: What the numbers are for; integers (also NumPy's) and strings, in an order that is part of the key.

    Returns:
        SHA-256 of the key, as a non-negative integer.
    """
    words = [word if isinstance(word, str) else int(word) for word in (seed, *key)]
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest(), "little")


def rng(seed: int, *key: int | str) -> np.random.Generator:
    """A NumPy generator of its own for this seed and key (see `digest`)."""
    return np.random.default_rng(np.random.SeedSequence(digest(seed, *key)))


def torch_rng(seed: int, *key: int | str) -> torch.Generator:
    """A torch generator on the CPU of its own for this seed and key (see `digest`).

    Draw on the CPU and move the result: the streams of CUDA generators depend on the device.
    """
    import torch

    return torch.Generator().manual_seed(digest(seed, *key) >> 193)  # 63 bits: what manual_seed takes as positive
