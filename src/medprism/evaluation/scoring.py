"""All scores of one subject: the model and its rivals, on every set of given scans, under every protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.evaluation import protocols as rules
from medprism.evaluation.results import Score
from medprism.evaluation.rivals import RIVALS, Rivals
from medprism.evaluation.slices import SliceStore

if TYPE_CHECKING:
    from medprism.data.cache import Entry

Given = Literal["single", "rest"]
PHYSICAL = ("HU", "SUV")  # units in which errors are also given


class Predictor(Protocol):
    """What is evaluated: see `medprism.inference.Model`. Its card may name `sources` and `makes`, if not all are."""

    card: dict[str, Any]
    path: Path | None

    def predict(self, images: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """All M modalities (M, X, Y, Z), normalised, from the present ones of (M, X, Y, Z)."""
        ...

    def embed(self, images: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The pooled representation (M, C) of each present scan of (M, X, Y, Z)."""
        ...


class Scorer:
    """Scores one subject after the other; holds what they share.

    Args:
        model: the model.
        modalities: of the cohort.
        units: modality -> unit of its intensities.
        rivals: fitted.
        protocols: to score by.
        given: sets of scans.
    """

    def __init__(
        self,
        model: Predictor,
        modalities: Sequence[str],
        units: Mapping[str, str],
        rivals: Rivals,
        *,
        protocols: Sequence[rules.Protocol],
        given: Sequence[Given],
    ) -> None:
        self.model, self.rivals = model, rivals
        self.modalities, self.units, self.protocols, self.given = modalities, units, protocols, given
        self.sources, self.makes = (
            [k for k, name in enumerate(modalities) if name in model.card.get(key, modalities)]
            for key in ("sources", "makes")
        )

    def score(self, entry: Entry, slices: SliceStore) -> list[Score]:
        """All scores of a subject; its slices are kept in `slices`."""
        images, foreground = entry.images(), entry.foreground()
        present = np.flatnonzero(entry.present).tolist()
        sources, targets = ([k for k in present if k in own] for own in (self.sources, self.makes))
        singles: dict[int, NDArray[np.float32]] = {}
        scores: list[Score] = []
        if "single" in self.given:
            for source in sources:
                output = singles[source] = self._predict(entry, images, [source])
                scores += self._of_one(entry, images, foreground, [source], targets, output)
        if "rest" in self.given:
            for target in targets:
                rest = [source for source in sources if source != target]
                if len(rest) < 2:
                    continue
                output = self._predict(entry, images, rest)
                scores += self._of_one(entry, images, foreground, rest, [target], output)
        slices.keep(entry, images, foreground, singles)
        return scores

    def _predict(self, entry: Entry, images: NDArray[np.float32], given: list[int]) -> NDArray[np.float32]:
        present = np.isin(np.arange(len(images)), given)
        alone = np.where(present[:, None, None, None], images, np.float32(0))  # what is not given cannot be read
        output = self.model.predict(alone, present)
        if output.shape != images.shape or not np.isfinite(output).all():
            raise UserError(
                f"{entry.subject}: expected finite images {images.shape} from the model, got {output.shape} with "
                f"{int((~np.isfinite(output)).sum())} non-finite values; the model is broken, train it again"
            )
        return output

    def _written(
        self, output: NDArray[np.float32], foreground: NDArray[np.bool_], given: list[int], target: int
    ) -> NDArray[np.float32]:
        """The model's image as it is written: `synthesize` leaves air outside the sources' foregrounds.

        Air has the value that the rivals have there, learnt in training; so the whole-volume scores compare images
        and not backgrounds.
        """
        air = self.rivals.background(given, target)
        return output if air is None else np.where(foreground[given].any(axis=0), output, np.float32(air))

    def _of_one(
        self,
        entry: Entry,
        images: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        given: list[int],
        targets: list[int],
        output: NDArray[np.float32],
    ) -> list[Score]:
        """Scores of the model and the rivals for one set of given scans."""
        written = {target: self._written(output[target], foreground, given, target) for target in targets}
        by_method: dict[str, dict[int, NDArray[np.float32]]] = {"model": written}
        for rival in RIVALS:  # a rival given its own target would be a copy: it is not scored there
            guesses = {j: self.rivals.predict(rival, images, foreground, given, j) for j in targets if [j] != given}
            by_method[rival] = {j: guess for j, guess in guesses.items() if guess is not None}
        names = tuple(self.modalities[i] for i in given)
        scores: list[Score] = []
        for method, outputs in by_method.items():
            for protocol in self.protocols:
                for target, values in self._rate(protocol, entry, images, foreground, given, outputs).items():
                    scores += [
                        Score(
                            protocol=protocol,
                            method=method,
                            given=names,
                            target=self.modalities[target],
                            region=region,
                            metric=metric,
                            value=value,
                            subject=entry.subject,
                            person=entry.person,
                        )
                        for (region, metric), value in values.items()
                    ]
        return scores

    def _rate(
        self,
        protocol: rules.Protocol,
        entry: Entry,
        images: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        given: list[int],
        outputs: Mapping[int, NDArray[np.float32]],
    ) -> dict[int, rules.Scores]:
        own = np.asarray(foreground[given].any(axis=0))
        scales = {j: entry.scales[self.modalities[j]] for j in outputs}
        if protocol == "paper":
            order = list(outputs)
            dark = {j: not images[j][~foreground[j]].any() for j in order}  # cut out: see `with_air`
            truths = [rules.with_air(images[j], foreground[j], scales[j]) if dark[j] else images[j] for j in order]
            written = [rules.with_air(outputs[j], own, scales[j]) if dark[j] else outputs[j] for j in order]
            return dict(zip(order, rules.paper(np.stack(truths), np.stack(written)), strict=True)) if order else {}
        units = {j: self.units[self.modalities[j]] for j in outputs}
        return {
            j: rules.strict(
                images[j], output, foreground=own, scale=scales[j], unit=units[j] if units[j] in PHYSICAL else ""
            )
            for j, output in outputs.items()
        }
