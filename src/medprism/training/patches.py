"""The loaders of all trainings: random crops for training, fixed ones for validation."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
from torch.utils.data import DataLoader

from medprism.data.batch import Sample, collate
from medprism.data.cache import Cache, Entry
from medprism.data.intensity_change import IntensityChange
from medprism.data.patches import PatchDataset
from medprism.data.sampler import EpochSampler
from medprism.errors import UserError, expect
from medprism.models.prism import Prism


@dataclass(frozen=True)
class PatchConfig:
    """What an epoch is made of.

    Attributes:
        size: sides of a patch in voxels.
        per_subject: patches of a subject in an epoch; at least 2 give the contrastive loss sub-volumes of one person.
        batch: sub-volumes in a step of one process; an even number lets neighbours swap boxes.
        validation: fixed patches of each validation subject.
        workers: loader processes; 0 loads in the training process. The stream is the same.
        on_label: share of the patches that are centred on labelled voxels, for supervised training.
        intensity: probability of each change of a scan's intensities (scale, shift, noise, blur); 0 for none.
    """

    size: tuple[int, int, int] = (96, 96, 96)
    per_subject: int = 2
    batch: int = 2
    validation: int = 2
    workers: int = 0
    on_label: float = 0.0
    intensity: float = 0.0

    def __post_init__(self) -> None:
        expect(min(self.size) >= 1, "three sides of 1 voxel or more", "patches.size", self.size)
        for name in ("per_subject", "batch", "validation"):
            expect(getattr(self, name) >= 1, "1 or more", f"patches.{name}", getattr(self, name))
        for name in ("on_label", "intensity"):
            expect(0 <= getattr(self, name) <= 1, "a share from 0 to 1", f"patches.{name}", getattr(self, name))
        expect(self.workers >= 0, "0 or more", "patches.workers", self.workers)


def check_size(network: Prism, size: tuple[int, int, int]) -> None:
    """Refuse patches that the network cannot be trained on.

    Raises:
        UserError: a side is no multiple of the backbone's stride, or the bottleneck has one voxel to normalise.
    """
    if any(side % network.divisor for side in size):
        raise UserError(
            f"expected patch sides that are multiples of {network.divisor}, got {size}; change patches.size"
        )
    if network.config.backbone == "swinunetr" and max(size) < 64:
        raise UserError(f"expected a side of 64 voxels or more to train swinunetr, got {size}; change patches.size")
    if network.config.norm == "batch" and max(size) == network.divisor:
        raise UserError(
            f"expected a side above {network.divisor} voxels with network.norm batch, got {size}; change patches.size"
        )


class Patches(L.LightningDataModule):
    """Patches of a prepared cohort.

    Args:
        cache: the prepared cohort.
        config: what an epoch is made of.
        seed: of the run.
        world: number of training processes, for the number of steps.
        training: the subjects to train on, those of the training split if not given.

    Raises:
        UserError: a split is empty, a volume smaller than a patch, or a batch larger than an epoch.
    """

    def __init__(
        self, cache: Cache, config: PatchConfig, seed: int, world: int = 1, training: list[Entry] | None = None
    ) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        training = cache.subjects("training") if training is None else training
        validation = cache.subjects("validation")
        if not training:
            raise UserError(f"expected training subjects in {cache.name}, got none; make splits with medprism inspect")
        if not validation:
            raise UserError(
                f"expected validation subjects in {cache.name}, got none; the best checkpoint is chosen on them, "
                "make splits with medprism inspect"
            )
        self.training = PatchDataset(
            training,
            config.size,
            patches_per_subject=config.per_subject,
            seed=seed,
            on_label=config.on_label,
            intensity=IntensityChange(config.intensity) if config.intensity else None,
        )
        self.validation = PatchDataset(
            validation,
            config.size,
            patches_per_subject=config.validation,
            seed=seed,
            augment=False,
            on_label=config.on_label,
        )
        self.steps = len(EpochSampler(len(self.training), config.batch, seed=seed, world=world)) // config.batch

    def train_dataloader(self) -> DataLoader[Sample]:
        """Random crops; which ones is a function of seed and epoch, not of the number of processes."""
        trainer = self.trainer
        assert trainer is not None
        sampler = EpochSampler(
            len(self.training),
            self.config.batch,
            seed=self.seed,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return DataLoader(
            self.training,
            batch_size=self.config.batch,
            sampler=sampler,
            num_workers=self.config.workers,
            collate_fn=collate,
            persistent_workers=self.config.workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Fixed crops, those of one subject a batch; every process sees all of them."""
        return DataLoader(self.validation, batch_size=self.config.validation, collate_fn=collate)
