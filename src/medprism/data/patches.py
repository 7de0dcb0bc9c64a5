"""Random crops of prepared subjects, as a map-style dataset of `Sample`.

Where a crop lies and how it is turned is a function of (seed, epoch, index) alone, so any number of workers, ranks and
resumed runs see the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from medprism.data.batch import Sample
from medprism.data.randomness import rng
from medprism.data.turns import Turn
from medprism.data.window import Window
from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.data.cache import Entry
    from medprism.data.intensity_change import IntensityChange

LABEL_CENTRES = 1024  # kept of each class of a subject
TURN_PROBABILITY = 0.2  # of a flip along each axis and of a turn in the X-Y plane: the paper's recipe


class PatchDataset(Dataset[Sample]):
    """Crops of `patch_size` voxels around foreground voxels, `patches_per_subject` of each subject and epoch.

    The crops that one subject gives in one epoch lie in different places (unless the volume has fewer places than
    that), as a contrastive loss between sub-volumes needs. Where a volume is smaller than the patch, it lies in the
    middle of it, with air around: no foreground, no label.

    Args:
        entries: Prepared subjects, e.g. `cache.subjects("training")`.
        patch_size: (X, Y, Z) voxels.
        patches_per_subject: Crops of each subject in one epoch.
        seed: The seed of the run.
        augment: Flip along each axis and turn by 90, 180 or 270 degrees in the X-Y plane, with probability 0.2 each;
            images, foreground, label and affine alike. Only patches with X = Y can be turned.
        on_label: Probability that a crop is centred on a labelled voxel, of a class drawn among the subject's, instead
            of any foreground voxel.
        intensity: How scans' intensities are changed, or None.

    Raises:
        UserError: There is no subject, or a volume is not even half as large as the patch.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        patch_size: tuple[int, int, int],
        *,
        patches_per_subject: int = 2,
        seed: int = 0,
        augment: bool = True,
        on_label: float = 0.0,
        intensity: IntensityChange | None = None,
    ) -> None:
        if not entries:
            raise UserError("expected at least one prepared subject, got none; check the splits of the cohort file")
        for entry in entries:
            if any(2 * n < p for n, p in zip(entry.shape, patch_size, strict=True)):
                raise UserError(
                    f"expected volumes of at least half the patch size of {_size(patch_size)} voxels, got "
                    f"{_size(entry.shape)} for {entry.subject}; lower the patch size, or prepare with a finer spacing"
                )
        self.entries, self.patch_size = list(entries), patch_size
        self.patches_per_subject, self.seed, self.augment = patches_per_subject, seed, augment
        self.on_label, self.intensity = on_label, intensity
        self._labelled: dict[int, list[NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return len(self.entries) * self.patches_per_subject

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """One crop.

        Args:
            key: (epoch, index) as `EpochSampler` yields, or an index alone for epoch 0 (e.g. fixed validation crops).
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, crop = divmod(index, self.patches_per_subject)
        entry = self.entries[number]
        start = self._start(entry, epoch, number, crop)
        turn = self._turn(epoch, index)
        window = Window.of(entry.shape, start, self.patch_size)
        label = entry.label(window.start, window.size)
        affine = entry.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ start
        images = turn(window.pad(entry.images(window.start, window.size), entry.background))
        if self.intensity is not None:
            names = [name if here else None for name, here in zip(entry.modalities, entry.present, strict=True)]
            self.intensity(images, names, self.seed, (epoch, index))
        return Sample(
            images=torch.from_numpy(images),
            foreground=torch.from_numpy(turn(window.pad(entry.foreground(window.start, window.size)))),
            present=torch.tensor(entry.present),
            affine=torch.from_numpy(turn.affine(affine, self.patch_size)),
            label=None if label is None else torch.from_numpy(turn(window.pad(label)).astype(np.int64)),
            class_label=entry.class_label,
            person=entry.person,
            subject=entry.subject,
            index=index,
        )

    def _start(self, entry: Entry, epoch: int, number: int, crop: int) -> tuple[int, int, int]:
        """First voxel of a crop: around a labelled voxel, or else the crop-th of all distinct places around foreground.

        The distinct places come in random order.
        """
        draw = rng(self.seed, "on label", epoch, number, crop)
        if draw.random() < self.on_label and (classes := self._label_centres(number)):
            places = classes[int(draw.integers(len(classes)))]
            x, y, z = self._inside(entry, places[int(draw.integers(len(places)))])
            return int(x), int(y), int(z)
        centres = rng(self.seed, "crop", epoch, number).permutation(entry.centres)
        starts = self._inside(entry, centres)
        distinct = _distinct(starts, crop + 1)
        x, y, z = distinct[crop % len(distinct)]
        return int(x), int(y), int(z)

    def _inside(self, entry: Entry, centres: NDArray[np.int64]) -> NDArray[np.int64]:
        """First voxels (..., 3) of the crops around centres (..., 3), moved to lie within the volume, or it in them."""
        starts = centres - np.array(self.patch_size) // 2
        room = np.subtract(entry.shape, self.patch_size)
        inside: NDArray[np.int64] = np.clip(starts, np.minimum(room // 2, 0), np.where(room < 0, room // 2, room))
        return inside

    def _label_centres(self, number: int) -> list[NDArray[np.int64]]:
        """Some voxels (K, 3) of each class of a subject, the background left out; found once a process."""
        if number not in self._labelled:
            label = self.entries[number].label()
            values = [] if label is None else [value for value in np.unique(label).tolist() if value]
            self._labelled[number] = []
            for value in values:
                places = np.argwhere(label == value)
                keep = rng(self.seed, "label centres", number, int(value)).permutation(len(places))[:LABEL_CENTRES]
                self._labelled[number].append(places[keep].astype(np.int64))
        return self._labelled[number]

    def _turn(self, epoch: int, index: int) -> Turn:
        """How a crop is turned; all numbers are drawn, used or not, so that the patch's shape changes no other draw."""
        if not self.augment:
            return Turn()
        draw = rng(self.seed, "turn", epoch, index)
        flips = draw.random(3) < TURN_PROBABILITY
        turned, quarters = draw.random() < TURN_PROBABILITY, int(draw.integers(1, 4))
        square = self.patch_size[0] == self.patch_size[1]
        return Turn(flips=tuple(map(bool, flips)), quarters=quarters if turned and square else 0)


def _distinct(rows: NDArray[np.int64], count: int) -> list[tuple[int, ...]]:
    """The first `count` different rows, fewer if there are fewer."""
    found: dict[tuple[int, ...], None] = {}
    for row in rows:
        found[tuple(row.tolist())] = None
        if len(found) == count:
            break
    return list(found)


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
