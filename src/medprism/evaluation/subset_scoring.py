"""All scores of one subject's segmentations: the model on every subset of the subject's scans, and trivial rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.evaluation.detection import detection
from medprism.evaluation.folder import named
from medprism.evaluation.overlap import Mask, dice, hd95
from medprism.evaluation.results import Score
from medprism.evaluation.slices import SliceStore
from medprism.evaluation.subset_summaries import OUTPUT, TRUTH
from medprism.evaluation.subsets import Subset, spelled
from medprism.inference.components import drop_small

if TYPE_CHECKING:
    from medprism.data.cache import Entry

PROTOCOL = "subsets"
EMPTY, SMALL = "empty", "model+small"
METHODS = ("model", SMALL, EMPTY)

Labels = NDArray[np.uint8] | NDArray[np.uint16]


class SegPredictor(Protocol):
    """What is evaluated: see `medprism.inference.segmentation.SegmentationModel`."""

    card: dict[str, Any]
    path: Path | None
    classes: tuple[int, ...]
    labels: dict[str, int]
    regions: dict[str, list[int]]

    def predict(
        self,
        images: NDArray[np.float32],
        present: NDArray[np.bool_],
        foreground: NDArray[np.bool_] | None = None,
        given: NDArray[np.bool_] | None = None,
        affine: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """How likely each class is, (K, X, Y, Z), from the present ones of (M, X, Y, Z), or those of them `given`.

        `affine` (4, 4), voxel -> world mm, is for models that know what is where.
        """
        ...


class SubsetScorer:
    """Scores one subject after the other; holds what they share.

    Args:
        model: the model.
        modalities: of the cohort.
        subsets: of them; a subject is scored on those that it has all scans of.
        small: region -> least volume in mm³, see `drop_small`; such results are scored beside the raw ones.
        with_detection: also the scores of scans that may have no lesion.
        with_empty: also the rival that finds nothing.
    """

    def __init__(
        self,
        model: SegPredictor,
        modalities: Sequence[str],
        subsets: Sequence[Subset],
        *,
        small: Mapping[str, float],
        with_detection: bool,
        with_empty: bool,
    ) -> None:
        self.model, self.subsets, self.small = model, subsets, small
        self.modalities = modalities
        self.with_detection, self.with_empty = with_detection, with_empty
        self.values = np.array(model.classes, np.uint8 if max(model.classes) <= 255 else np.uint16)

    def score(self, entry: Entry, slices: SliceStore) -> list[Score]:
        """All scores of a subject; its slices are kept in `slices`."""
        images, foreground, label = entry.images(), entry.foreground(), entry.label()
        if label is None:
            raise ValueError(f"{entry.subject} has no label")
        spacing = np.linalg.norm(entry.affine[:3, :3], axis=0)
        truths = {region: np.isin(label, values) for region, values in self.model.regions.items()}
        scores: list[Score] = []
        outputs: dict[str, Labels] = {"truth": label}
        for subset in self.subsets:
            given = np.isin(self.modalities, subset)
            if not (np.array(entry.present) | ~given).all():
                continue
            found = self._predict(entry, images, foreground, given)
            outputs[spelled(subset)] = found
            methods = {"model": found}
            if self.small:
                volume = float(spacing.prod())
                methods[SMALL] = drop_small(found, self.small, self.model.regions, voxel_mm3=volume)
            if self.with_empty:
                methods[EMPTY] = np.zeros_like(found)
            for method, labels in methods.items():
                for region, values in self.model.regions.items():
                    rated = self._rate(truths[region], np.isin(labels, values), spacing)
                    scores += [
                        Score(PROTOCOL, method, subset, None, region, metric, value, entry.subject, entry.person)
                        for metric, value in rated.items()
                    ]
        slices.keep(entry, images, foreground, {}, outputs)
        return scores

    def _predict(
        self, entry: Entry, images: NDArray[np.float32], foreground: NDArray[np.bool_], given: NDArray[np.bool_]
    ) -> Labels:
        seen = np.asarray(foreground[given].any(axis=0))
        if self.model.card.get("leaks"):  # shows what the published setting does; every table says so
            likely = self.model.predict(images, np.array(entry.present), seen, given, affine=entry.affine)
        else:
            alone = np.where(given[:, None, None, None], images, np.float32(0))  # what is not given cannot be read
            with named(entry.subject):
                likely = self.model.predict(alone, given, seen, affine=entry.affine)
        wanted = (len(self.values), *images.shape[1:])
        if likely.shape != wanted or not np.isfinite(likely).all():
            raise UserError(
                f"{entry.subject}: expected finite probabilities {wanted} from the model, got {likely.shape} with "
                f"{int((~np.isfinite(likely)).sum())} non-finite values; the model is broken, train it again"
            )
        labels: Labels = self.values[likely.argmax(axis=0)]
        return labels

    def _rate(self, truth: Mask, output: Mask, spacing: NDArray[np.float64]) -> dict[str, float]:
        millilitres = float(spacing.prod()) / 1000
        values = {"dice": dice(truth, output), "hd95": hd95(truth, output, spacing.tolist())}
        values[TRUTH] = float(np.count_nonzero(truth)) * millilitres
        values[OUTPUT] = float(np.count_nonzero(output)) * millilitres
        if self.with_detection:
            values |= detection(truth, output, values["dice"], millilitres)
        return values
