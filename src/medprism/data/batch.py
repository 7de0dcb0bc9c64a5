"""One crop of one subject (`Sample`), several of them (`Batch`), and how the second is made of the first.

Subjects lack different scans, so the modality axis is always complete and `present` says which channels are real.
An absent scan is zero and its foreground empty; neither is ever to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medprism.errors import UserError

UNLABELLED = -1
"""Label of every voxel (or class of a subject) that has none, in a batch where others do: torch's `ignore_index`."""


@dataclass(frozen=True)
class Sample:
    """One crop of one subject.

    Attributes:
        images: (M, X, Y, Z) float32, normalised intensities; zero where absent.
        foreground: (M, X, Y, Z) bool, each scan's own foreground.
        present: (M,) bool, True = this scan exists.
        affine: (4, 4) float64, voxel of this crop -> world mm (RAS+), after augmentation.
        label: (X, Y, Z) int64, or None for a subject without a label.
        class_label: Class of the subject, or None.
        person: Who it is; one person may have several subjects (visits).
        subject: Which visit of that person.
        index: Which sample of the epoch this is; with seed and epoch the key of all its randomness.
    """

    images: Tensor
    foreground: Tensor
    present: Tensor
    affine: Tensor
    label: Tensor | None
    class_label: int | None
    person: str
    subject: str
    index: int


@dataclass
class Batch:
    """B crops, stacked: what the loader hands to every method.

    Attributes:
        images: (B, M, X, Y, Z) float32, zero where absent.
        foreground: (B, M, X, Y, Z) bool, each scan's own foreground, False where absent.
        present: (B, M) bool, True = this scan exists; every row has at least one.
        affine: (B, 4, 4) float64, voxel of each crop -> world mm (RAS+).
        label: (B, X, Y, Z) int64 with `UNLABELLED` for subjects without one, or None where no subject has one.
        class_label: (B,) int64 with `UNLABELLED` for subjects without one, or None where no subject has one.
        person: B names.
        subject: B names.
        index: (B,) int64, which sample of the epoch each is; with seed and epoch the key of all randomness.
    """

    images: Tensor
    foreground: Tensor
    present: Tensor
    affine: Tensor
    label: Tensor | None
    class_label: Tensor | None
    person: list[str]
    subject: list[str]
    index: Tensor

    def __len__(self) -> int:
        return len(self.subject)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; `DataLoader(pin_memory=True)` calls this by its name."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, function: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            moved[name] = function(value) if isinstance(value, Tensor) else value
        return Batch(**moved)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of subjects that may lack different scans.

    Args:
        samples: B crops of one size.

    Returns:
        The batch.

    Raises:
        UserError: A subject has no present scan at all; every loss would be a mean over nothing.
    """
    present = torch.stack([sample.present for sample in samples])
    if not present.any(dim=1).all():
        empty = sorted({s.subject for s in samples if not s.present.any()})
        raise UserError(f"expected at least one scan per subject, got none for {', '.join(empty)}; leave them out")
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        foreground=torch.stack([sample.foreground for sample in samples]),
        present=present,
        affine=torch.stack([sample.affine for sample in samples]),
        label=_labels(samples),
        class_label=_classes(samples),
        person=[sample.person for sample in samples],
        subject=[sample.subject for sample in samples],
        index=torch.tensor([sample.index for sample in samples]),
    )


def _labels(samples: Sequence[Sample]) -> Tensor | None:
    labels = [sample.label for sample in samples]
    like = next((label for label in labels if label is not None), None)
    if like is None:
        return None
    return torch.stack([torch.full_like(like, UNLABELLED) if label is None else label for label in labels])


def _classes(samples: Sequence[Sample]) -> Tensor | None:
    classes = [sample.class_label for sample in samples]
    if all(value is None for value in classes):
        return None
    return torch.tensor([UNLABELLED if value is None else value for value in classes])
