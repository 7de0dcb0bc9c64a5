"""Small batches of random sub-volumes for the tests of the methods."""

import torch

from medprism.data.batch import Batch


def batch(
    present: list[list[bool]], size: tuple[int, int, int] = (16, 16, 16), seed: int = 0, absent: float = 0.0
) -> Batch:
    """Random normalised scans; absent ones hold `absent`, e.g. NaN."""
    generator = torch.Generator().manual_seed(seed)
    given = torch.tensor(present)
    shape = (*given.shape, *size)
    images = torch.randn(shape, generator=generator)
    foreground = torch.rand(shape, generator=generator) > 0.4
    images[~given], foreground[~given] = absent, False
    names = [f"s{number}" for number in range(len(present))]
    return Batch(
        images=images,
        foreground=foreground,
        present=given,
        affine=torch.eye(4, dtype=torch.float64).expand(len(present), 4, 4),
        label=None,
        class_label=None,
        person=names,
        subject=names,
        index=torch.arange(len(present)) + 10,
    )
