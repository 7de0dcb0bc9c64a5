"""A model that outlines regions in whatever scans a subject has: kept loaded, asked as often as wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medprism.errors import UserError
from medprism.inference.components import checked, described, drop_small, voxel_mm3
from medprism.inference.device import Precision
from medprism.inference.expectation import measured
from medprism.inference.inputs import Image
from medprism.inference.segmented import Segmentation
from medprism.inference.trained import Case, Trained, border, parts, tensors
from medprism.inference.windows import slide
from medprism.io.geometry import inside, resample

logger = logging.getLogger(__name__)

COVERED = 0.95
"""Of the body in the scan that the map is on, the part below which a warning says that not all was looked at."""


class SegmentationModel(Trained):
    """A network that gives every voxel a label, with all that it needs to take scans and give label maps.

    Attributes:
        classes: label value of each of the network's K outputs, background first.
        labels: name -> label value.
        regions: name -> the label values that make it up; where the cohort named none, each label is one.
    """

    task = "segmentation"

    def __init__(
        self,
        network: nn.Module,
        card: Mapping[str, Any],
        *,
        path: Path | None = None,
        device: str = "auto",
        precision: Precision = "32",
    ) -> None:
        super().__init__(network, card, path=path, device=device, precision=precision)
        if absent := [key for key in ("classes", "labels") if not card.get(key)]:
            raise UserError(
                f"expected {' and '.join(absent)} in the card of {path or 'the model'}, got none; train again"
            )
        self.classes = tuple(int(value) for value in card["classes"])
        self.labels = {str(name): int(value) for name, value in card["labels"].items()}
        named = {str(name): [int(value) for value in values] for name, values in (card.get("regions") or {}).items()}
        self.regions = named or {name: [value] for name, value in self.labels.items() if value}
        # Where no window lies there is nothing but background.
        self._outside = torch.tensor([float(value == 0) for value in self.classes])

    @property
    def foreground_labels(self) -> tuple[str, ...]:
        """Names of the classes but background, in the order of the network's outputs."""
        names = {value: name for name, value in self.labels.items()}
        return tuple(names[value] for value in self.classes if value)

    def predict(
        self,
        images: NDArray[np.float32],
        present: NDArray[np.bool_],
        foreground: NDArray[np.bool_] | None = None,
        given: NDArray[np.bool_] | None = None,
        affine: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """How likely each class is in each voxel of one prepared subject.

        Args:
            images: (M, X, Y, Z) normalised; what is absent is never read.
            present: (M,) bool.
            foreground: (X, Y, Z) bool, windows without any are not run; None means wherever a present scan differs from
                its border.
            given: (M,) bool, what the network is told to be given; None means `present`. A network that `leaks` sees
                the other present scans all the same, which is what it is evaluated for.
            affine: (4, 4) voxel -> world mm; of need where templates fill absent scans, else not looked at.

        Returns:
            (K, X, Y, Z) float32, softmax of each window's output, blended over windows; the sum over classes is 1.

        Raises:
            UserError: templates are to fill absent scans, but there is no affine, or scans reach beyond them.
        """
        volume, here = tensors(images, present)
        where = None if foreground is None else torch.from_numpy(np.require(foreground, np.bool_, ["C", "W"]))
        told = None if given is None else torch.from_numpy(np.require(given, np.bool_, ["C", "W"]))
        if told is not None and self.filling is not None:
            here, told = here & told, None  # what is not given is filled
        subject = self._filled((volume, here, where, border(volume, here)), affine)
        made: NDArray[np.float32] = self._predict(*subject, given=told).numpy()
        return made

    def segment(
        self,
        images: Mapping[str, Image],
        *,
        reference: str | None = None,
        small: Mapping[str, float] | None = None,
        probabilities: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Segmentation:
        """The label map of one subject, from the scans that there are.

        Args:
            images: modality (any alias) -> file or scan, in one world space.
            reference: the given modality on whose grid the map is; by default the one that training preferred, else
                the first in the model's order.
            small: region -> mm³; one of less volume is taken for a mistake, see `drop_small`. The raw map is kept too.
            probabilities: also keep how likely each label is.
            progress: called with the part done, 0 to 1.

        Raises:
            UserError: unknown names, a file that is no sound scan, scans in different spaces or beyond the templates
                that fill absent ones, no foreground.
        """
        started = time.perf_counter()
        checked(small or {}, self.regions)
        case = self.case(images, reference)
        subject = self._filled(case.tensors, case.volume.grid.affine)
        array, kept = self._on_grid(self._predict(*subject, progress).numpy(), case, probabilities)
        raw = None
        if small:
            raw, array = array, drop_small(array, small, self.regions, voxel_mm3=voxel_mm3(case.grid))
        facts = {
            "Synthetic": False,
            "Content": "labels",
            "Labels": self.labels,
            "Regions": self.regions,
            "Small": described(small or {}, self.regions) or None,
            "Covered": self._covered(case),
            "ExpectedDice": self.expected(case.scans),
            "GridOf": case.reference,
            **self.facts(case),
        }
        result = Segmentation(array, raw, kept, case.on, self.regions, facts)
        told = {"VolumesMl": result.volumes_ml, **facts, "Seconds": round(time.perf_counter() - started, 2)}
        return replace(result, sidecar=told)

    def expected(self, given: Collection[str]) -> dict[str, dict[str, Any]] | None:
        """Dice of each region measured with exactly these scans: mean, 95 % interval, subjects, split.

        Args:
            given: canonical names.

        Returns:
            None where this subset was not evaluated.
        """
        rows = {region: measured(self.card, given, metric="dice", region=region) for region in self.regions}
        return {region: row for region, row in rows.items() if row is not None} or None

    def _covered(self, case: Case) -> float:
        """Part of the reference scan's foreground that all given scans see; the rest is labelled background, unseen."""
        mask = self.recipe.normalisers[case.reference].foreground_mask(case.on.array, name=case.reference)
        part = float(inside(case.volume.grid, case.grid)[mask].mean())
        if part < COVERED:
            logger.warning(
                "%d %% of the body in %s is seen by all of %s; the rest is labelled background without a look",
                int(100 * part),
                case.on.path or case.reference,
                ", ".join(case.scans),
            )
        return round(part, 4)

    def _predict(
        self,
        images: Tensor,
        present: Tensor,
        foreground: Tensor | None,
        background: Tensor,
        progress: Callable[[float], None] | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        # Probabilities are blended, not logits: one window that is very sure does not outvote all others.
        return slide(
            lambda stack, here: self.runner.segment(stack, here).softmax(dim=1),
            images,
            present,
            self.patch_size,
            batch=self.runner.batch,
            foreground=foreground,
            background=background,
            outside=self._outside,
            given=given,
            progress=parts(progress),
        )

    def _on_grid(
        self, likely: NDArray[np.float32], case: Case, keep: bool
    ) -> tuple[NDArray[Any], dict[str, NDArray[np.float32]] | None]:
        """Labels and, if wanted, probabilities by label, on the outputs' grid; background beyond the prepared box.

        Probabilities are interpolated, then compared: labels themselves can only be moved by whole voxels. One class
        at a time, as a CT's grid times all classes may not fit into memory.
        """
        source, target = case.volume.grid, case.grid
        best = np.zeros(target.shape, np.float32)
        array = np.zeros(target.shape, np.uint8 if max(self.classes) <= 255 else np.uint16)
        kept = []
        for value, one in zip(self.classes, likely, strict=True):
            moved = resample(one, source, target, order=1, fill=float(value == 0))
            better = moved > best
            array[better] = value
            np.maximum(best, moved, out=best)
            if keep and value:
                kept.append(np.clip(moved, 0, 1))
        return array, dict(zip(self.foreground_labels, kept, strict=True)) if keep else None
