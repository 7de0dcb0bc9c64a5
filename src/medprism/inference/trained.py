"""What the models of all tasks share: a network with its card, scans read and prepared as in training, windows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import medprism
from medprism.data.intensity import Scale
from medprism.data.recipe import Recipe
from medprism.data.volume import Volume, assemble
from medprism.errors import UserError
from medprism.inference.device import Precision, Runner, choose_device
from medprism.inference.inputs import Image, choose_reference, read_scans
from medprism.inference.windows import slide_embed
from medprism.io.grid import Grid
from medprism.io.nifti import Scan
from medprism.models.filling import filling_of
from medprism.models.folder import find_model, load_card, load_model

logger = logging.getLogger(__name__)

VERBS = {
    "transfer": "synthesize",
    "segmentation": "segment",
    "classification": "classify",
    "start": "finetune --init first",
    "representation": "finetune --init first, or medprism evaluate --representation",
}
"""Task of a model -> the command that uses it."""


Prepared = tuple[Tensor, Tensor, Tensor | None, Tensor]
"""(M, X, Y, Z) images, (M,) present, (X, Y, Z) foreground of any scan if it is known, (M,) background."""


@dataclass(frozen=True, eq=False)
class Case:
    """One subject, read and prepared.

    Attributes:
        scans: the given scans by modality, in the model's order.
        reference: the modality on whose grid the outputs are.
        volume: all of them on one grid, normalised.
    """

    scans: Mapping[str, Scan]
    reference: str
    volume: Volume

    @property
    def on(self) -> Scan:
        """The scan whose grid the outputs have."""
        return self.scans[self.reference]

    @property
    def grid(self) -> Grid:
        """Where the outputs are."""
        return self.on.grid

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(M, X, Y, Z) images, (M,) present, (X, Y, Z) foreground of any scan, (M,) background."""
        volume = self.volume
        foreground = torch.from_numpy(volume.foreground.any(axis=0))
        images, present = torch.from_numpy(volume.images), torch.from_numpy(volume.present)
        return images, present, foreground, torch.from_numpy(volume.background)


class Trained:
    """A network with all that it needs to take scans; a subclass a task says what it gives.

    Attributes:
        task: what model.json of such a model says.
        card: model.json.
        path: the model folder, or None if made in memory.
        recipe: how scans are prepared, the same as for training.
        typical_scales: modality -> its median normalisation in training.
        runner: the network on its device.
        filling: templates that stand where a scan is absent; None for a model that takes it as absent.
    """

    task: ClassVar[str]

    def __init__(
        self,
        network: nn.Module,
        card: Mapping[str, Any],
        *,
        path: Path | None = None,
        device: str = "auto",
        precision: Precision = "32",
    ) -> None:
        self.card, self.path = dict(card), path
        self.recipe = Recipe.from_dict({"reference": None, "margin": 4, **card})
        self.typical_scales = {name: Scale.from_dict(scale) for name, scale in card["typical_scales"].items()}
        self.patch_size: tuple[int, ...] = tuple(card["patch_size"])
        self.filling = filling_of(card, path)
        self.runner = Runner(network, choose_device(device), precision)
        if self.runner.device.type == "cpu":  # small windows keep a processor busier several at once
            self.runner.batch = min(8, max(1, 64**3 // math.prod(self.patch_size)))

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", *, precision: Precision = "32") -> Self:
        """A model from its folder, or from the folder of the run that made it.

        Args:
            path: model or run folder.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
            precision: `bf16` is faster on recent GPUs and a little less exact.

        Raises:
            UserError: no such model, one for another task, an altered one, or no such device.
        """
        _require_task(task_of(path), cls.task, path)
        network, card = load_model(path)
        if (Path(path) / "config.yaml").exists() and not (Path(path) / "done").exists():
            logger.warning("the training in %s has not ended; this is its best model so far", path)
        if "note" in card:  # what whoever uses the model must know
            logger.warning("%s: %s", path, card["note"])
        return cls(network, card, path=find_model(path), device=device, precision=precision)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Canonical names in the order of the channels."""
        return self.recipe.modalities

    @property
    def takes(self) -> tuple[str, ...]:
        """The modalities that it may be given: all, or those that training gave it."""
        return tuple(name for name in self.modalities if name in self.card.get("sources", self.modalities))

    def embed(self, images: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The representation of one prepared subject as each of its scans shows it.

        Args:
            images: (M, X, Y, Z) normalised; what is absent is never read.
            present: (M,) bool.

        Returns:
            (M, C) float32, mean over the volume's windows; zero where absent.
        """
        volume, here = tensors(images, present)
        vectors = slide_embed(
            self.runner.embed, volume, here, self.patch_size, batch=self.runner.batch, background=border(volume, here)
        )
        made: NDArray[np.float32] = vectors.numpy()
        return made

    def case(self, images: Mapping[str, Image], reference: str | None) -> Case:
        """The given scans, read, checked and prepared as for training.

        Args:
            images: modality (any alias) -> file or scan, in one world space.
            reference: the given modality on whose grid the outputs are; None: the one that training preferred, else
                the first in the model's order.

        Raises:
            UserError: unknown names, a file that is no sound scan, scans in different spaces, no foreground.
        """
        scans = read_scans(images, self.takes)
        chosen = self.reference_of(list(scans), reference)
        return Case(scans, chosen, assemble(scans, replace(self.recipe, reference=chosen)))

    def reference_of(self, given: Sequence[str], asked: str | None = None) -> str:
        """The modality on whose grid outputs are, of canonical names given; as for `case`.

        Raises:
            UserError: the one asked for is not given.
        """
        preferred = choose_reference(asked, given, self.recipe.reference)
        return replace(self.recipe, reference=preferred).reference_of(given)

    def absent(self, given: Collection[str]) -> list[str]:
        """The modalities that it may be given and is not, of canonical names given."""
        return [name for name in self.takes if name not in given]

    def _filled(self, subject: Prepared, affine: NDArray[np.float64] | None) -> Prepared:
        """A prepared subject whose absent scans are filled by templates, if the model has them.

        What is foreground stays what the given scans show: a template has one too, but nobody's.

        Args:
            subject: as `Case.tensors` has it; without foreground it is found here.
            affine: (4, 4) voxel -> world mm.

        Raises:
            UserError: there is no affine, or the scans reach beyond the templates.
        """
        images, present, foreground, background = subject
        if self.filling is None or bool(present.all()):
            return subject
        if affine is None:
            raise UserError("expected the place of the scans in the world, as templates fill absent ones; give affine")
        x, y, z = images.shape[1:]
        place = torch.tensor(affine, dtype=torch.float64)
        self.filling.require_cover(place, (x, y, z), "scans")
        if foreground is None:
            foreground = (images[present] != background[present, None, None, None]).any(dim=0)
        images = images.clone()
        for channel in (~present).nonzero()[:, 0]:  # one at a time: whole volumes take memory
            images[channel] = self.filling.at(place[None], (x, y, z), channel[None])[0]
        everything = torch.ones_like(present)
        return images, everything, foreground, torch.where(present, background, border(images, ~present))

    def facts(self, case: Case) -> dict[str, Any]:
        """What the sidecars of all tasks say of how an output was made."""
        return {
            "Sources": [scan.path.name if scan.path is not None else name for name, scan in case.scans.items()],
            "SourceModalities": list(case.scans),
            "AbsentModalities": self.absent(case.scans),
            **({"FilledByTemplates": self.absent(case.scans)} if self.filling else {}),
            "ModelSHA256": self.card.get("sha256"),
            "ModelCohort": self.card.get("cohort"),
            "GeneratedBy": {"Name": "medprism", "Version": medprism.__version__},
            "Device": self.runner.device.type,
            "Precision": self.runner.precision,
        }


def task_of(path: str | Path) -> str:
    """The task of the model in a folder; the first cards did not name theirs, which was transfer.

    Raises:
        UserError: there is no model.
    """
    return str(load_card(path).get("task", "transfer"))


def _require_task(got: str, wanted: str, path: str | Path) -> None:
    if got == wanted:
        return
    raise UserError(f"expected a model for {wanted}, got one for {got} in {path}; {use_of(got)}")


def use_of(task: str) -> str:
    """What to do with a model of a task."""
    return f"use medprism {VERBS[task]}" if task in VERBS else "it is of another version of medprism"


def tensors(images: NDArray[np.float32], present: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """The arrays as tensors, copied only where torch cannot share them (read-only, not contiguous)."""
    shared = np.require(images, np.float32, ["C", "W"])
    return torch.from_numpy(shared), torch.from_numpy(np.require(present, np.bool_, ["C", "W"]))


def border(images: Tensor, present: Tensor) -> Tensor:
    """Median over the six faces of each present volume, which is air where anything is: (M,)."""
    air = torch.zeros(len(images))
    for channel in present.nonzero()[:, 0].tolist():
        image = images[channel]
        faces = [image.select(axis, end).flatten() for axis in range(3) for end in (0, -1)]
        air[channel] = torch.cat(faces).median()
    return air


def parts(progress: Callable[[float], None] | None) -> Callable[[int, int], None] | None:
    """Progress in windows as progress in parts, 0 to 1."""
    return None if progress is None else lambda done, total: progress(done / total)
