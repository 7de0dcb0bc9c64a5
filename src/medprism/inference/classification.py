"""A model that tells the class of a whole subject from whatever scans there are: kept loaded for any number of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medprism.errors import UserError
from medprism.inference.device import Precision
from medprism.inference.expectation import measured
from medprism.inference.inputs import Image
from medprism.inference.trained import Trained, border, parts, tensors
from medprism.inference.windows import slide_mean
from medprism.io.atomic import refuse_existing, whole_file

METRICS = ("auc", "acc", "f1")


@dataclass(frozen=True, eq=False)
class Classification:
    """The class of one subject.

    Attributes:
        probabilities: class -> how likely it is; the sum is 1.
        sidecar: all that is known about it, plain JSON.
    """

    probabilities: Mapping[str, float]
    sidecar: Mapping[str, Any]

    @property
    def likeliest(self) -> str:
        """The class of the largest probability, the first of several."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write it as JSON.

        Args:
            path: `.json`.
            force: overwrite.

        Returns:
            `path`.

        Raises:
            UserError: another ending, the file exists without `force`, or the system refused to write.
        """
        path = Path(path)
        require_json(path)
        refuse_existing(path, force=force)
        with whole_file(path) as file:
            file.write((json.dumps(dict(self.sidecar), indent=2) + "\n").encode())
        return path


class ClassificationModel(Trained):
    """A network that gives a subject a class, with all that it needs to take scans.

    Attributes:
        classes: name of each of the network's K outputs.
    """

    task = "classification"

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
        if not card.get("classes"):
            raise UserError(f"expected classes in the card of {path or 'the model'}, got none; train again")
        self.classes = tuple(str(name) for name in card["classes"])

    def predict(
        self,
        images: NDArray[np.float32],
        present: NDArray[np.bool_],
        foreground: NDArray[np.bool_] | None = None,
        affine: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """How likely each class is for one prepared subject.

        Args:
            images: (M, X, Y, Z) normalised; what is absent is never read.
            present: (M,) bool.
            foreground: (X, Y, Z) bool, windows count by how much of it they hold; None means wherever a present scan
                differs from its border.
            affine: (4, 4) voxel -> world mm; of need where templates fill absent scans, else not looked at.

        Returns:
            (K,) float32, softmax of what the head makes of the mean over windows; the sum is 1.

        Raises:
            UserError: templates are to fill absent scans, but there is no affine, or scans reach beyond them.
        """
        volume, here = tensors(images, present)
        where = None if foreground is None else torch.from_numpy(np.require(foreground, np.bool_, ["C", "W"]))
        subject = self._filled((volume, here, where, border(volume, here)), affine)
        made: NDArray[np.float32] = self._predict(*subject).numpy()
        return made

    def classify(
        self, images: Mapping[str, Image], *, progress: Callable[[float], None] | None = None
    ) -> Classification:
        """The class of one subject, from the scans that there are.

        Args:
            images: modality (any alias) -> file or scan, in one world space.
            progress: called with the part done, 0 to 1.

        Raises:
            UserError: unknown names, a file that is no sound scan, scans in different spaces or beyond the templates
                that fill absent ones, no foreground.
        """
        started = time.perf_counter()
        case = self.case(images, None)
        likely = self._predict(*self._filled(case.tensors, case.volume.grid.affine), progress).tolist()
        result = Classification(dict(zip(self.classes, likely, strict=True)), {})
        told = {
            "Class": result.likeliest,
            "Probabilities": {name: round(value, 6) for name, value in result.probabilities.items()},
            "Expected": self.expected(case.scans),
            **self.facts(case),
            "Seconds": round(time.perf_counter() - started, 2),
        }
        return Classification(result.probabilities, told)

    def expected(self, given: Collection[str]) -> dict[str, dict[str, Any]] | None:
        """AUC, accuracy and F1 measured with exactly these scans: mean, 95 % interval, subjects, split.

        Args:
            given: canonical names.

        Returns:
            None where this subset was not evaluated.
        """
        rows = {name: measured(self.card, given, metric=name) for name in METRICS}
        return {name: row for name, row in rows.items() if row is not None} or None

    def _predict(
        self,
        images: Tensor,
        present: Tensor,
        foreground: Tensor | None,
        background: Tensor,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        pooled = slide_mean(
            self.runner.features,
            images,
            present,
            self.patch_size,
            batch=self.runner.batch,
            foreground=foreground,
            background=background,
            progress=parts(progress),
        )
        return self.runner.head(pooled[None])[0].softmax(dim=0)


def require_json(path: Path) -> None:
    """Stop if a result would have a name that does not say what it is.

    Raises:
        UserError: the name does not end in .json.
    """
    if path.suffix != ".json":
        raise UserError(f"expected a file name ending in .json, got {path}; rename it")
