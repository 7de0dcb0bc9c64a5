"""The order of the samples in an epoch: a function of (seed, epoch), the same on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from medprism.data.randomness import rng
from medprism.errors import UserError


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) for one rank, so that `PatchDataset` knows the epoch in every worker without being told.

    An epoch is a permutation of all samples, cut into global batches of `batch_size * world`; rank r takes the r-th
    block of each. So one process with batch 2B sees in each step what two processes with batch B see together. The
    last global batch is filled with samples from the start of the permutation: every rank has the same number of full
    batches, every sample is seen, and no batch holds a sample twice.

    Give it as `DataLoader(sampler=…, batch_size=batch_size)`, the same batch size as here, and call `set_epoch` before
    each epoch (Lightning does by itself; set its `use_distributed_sampler=False`).

    Args:
        length: Number of samples, `len(dataset)`.
        batch_size: Samples per batch on one rank.
        seed: The seed of the run.
        rank: Which process this is, 0 … world − 1.
        world: Number of processes.

    Raises:
        UserError: There are fewer samples than one global batch takes.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        if length < batch_size * world:
            raise UserError(
                f"expected at least {batch_size * world} samples for {world} process(es) with batch size {batch_size}, "
                f"got {length}; lower the batch size or take more patches per subject"
            )
        self.length, self.batch_size, self.seed, self.rank, self.world = length, batch_size, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order, crops and augmentations the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of samples that this rank sees in an epoch, a multiple of the batch size."""
        return -(-self.length // (self.batch_size * self.world)) * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = rng(self.seed, "order", epoch).permutation(self.length)
        blocks = np.resize(order, len(self) * self.world).reshape(-1, self.world, self.batch_size)
        return ((epoch, int(index)) for index in blocks[:, self.rank].ravel())
