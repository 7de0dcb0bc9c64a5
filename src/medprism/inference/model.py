"""A trained model as one object: kept loaded, asked as often as wanted."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import medprism
from medprism.data.intensity import Scale
from medprism.data.recipe import Recipe
from medprism.data.volume import AIR, Volume, assemble
from medprism.inference.device import Precision, Runner, choose_device
from medprism.inference.inputs import Image, choose_reference, choose_targets, read_scans
from medprism.inference.result import Convention, Intensity, Result
from medprism.inference.uncertainty import spread, views
from medprism.inference.windows import slide, slide_embed
from medprism.io.geometry import Grid, inside, resample
from medprism.io.nifti import Scan
from medprism.models.folder import find_model, load_model


class Model:
    """A network with all that it needs to take scans and give scans.

    Attributes:
        card: model.json.
        path: the model folder, or None if made in memory.
        recipe: how scans are prepared, the same as for training.
        typical_scales: modality -> its median normalisation in training.
        runner: the network on its device.
    """

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
        self.runner = Runner(network, choose_device(device), precision)
        if self.runner.device.type == "cpu":  # small windows keep a processor busier several at once
            self.runner.batch = min(8, max(1, 64**3 // math.prod(self.patch_size)))

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", *, precision: Precision = "32") -> "Model":
        """A model from its folder, or from the folder of the run that made it.

        Args:
            path: model or run folder.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
            precision: `bf16` is faster on recent GPUs and a little less exact.

        Raises:
            UserError: no such model, an altered one, or no such device.
        """
        network, card = load_model(path)
        return cls(network, card, path=find_model(path), device=device, precision=precision)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Canonical names in the order of the channels."""
        return self.recipe.modalities

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that it was taught to make: those of which training had a scan."""
        return tuple(name for name in self.modalities if name in self.typical_scales)

    def predict(self, images: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """All modalities of one prepared subject, from the scans that are present.

        Args:
            images: (M, X, Y, Z) normalised; what is absent is never read.
            present: (M,) bool.

        Returns:
            (M, X, Y, Z) float32 normalised, within each modality's clip range.
        """
        volume, here = _tensors(images, present)
        air = self._air(here, _border(volume, here))
        made: NDArray[np.float32] = self._predict(volume, here, None, air).numpy()
        return made

    def embed(self, images: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The representation of one prepared subject as each of its scans shows it.

        Args:
            images: (M, X, Y, Z) normalised; what is absent is never read.
            present: (M,) bool.

        Returns:
            (M, C) float32, mean over the volume's windows; zero where absent.
        """
        volume, here = _tensors(images, present)
        vectors = slide_embed(
            self.runner.embed, volume, here, self.patch_size, batch=self.runner.batch, background=_border(volume, here)
        )
        made: NDArray[np.float32] = vectors.numpy()
        return made

    def synthesize(
        self,
        images: Mapping[str, Image],
        target: str | Iterable[str] = "all",
        *,
        uncertainty: bool = False,
        intensity: Intensity = "like-train",
        reference: str | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, Result]:
        """The scans that one subject lacks, from those that it has.

        Args:
            images: modality (any alias) -> file or scan, in one world space.
            target: a modality, several, or `all` that are not given.
            uncertainty: also map the spread over sources and rotations: that takes 4 more passes for each source.
            intensity: `like-train` or `unit`, see `Convention`.
            reference: the given modality on whose grid the outputs are; by default the one that training preferred,
                else the first in the model's order.
            progress: called with the part done, 0 to 1.

        Returns:
            Modality -> result, in the model's order.

        Raises:
            UserError: unknown names, a file that is no sound scan, scans in different spaces, no foreground.
        """
        started = time.perf_counter()
        scans = read_scans(images, self.modalities)
        targets = choose_targets(target, scans, self.makes)
        recipe = replace(self.recipe, reference=choose_reference(reference, scans, self.recipe.reference))
        volume = assemble(scans, recipe)
        made, deviation = self._both(volume, uncertainty, progress)
        on = scans[recipe.reference_of(list(scans))]
        foreground = self._foreground(scans, on.grid) & inside(volume.grid, on.grid)
        facts = self._facts(scans, recipe.reference_of(list(scans)), uncertainty)
        results = {}
        for name in targets:
            channel = self.modalities.index(name)
            convention = Convention.of(intensity, self.typical_scales[name], self.recipe.normalisers[name].unit)
            array = convention.write(_moved(made[channel], volume, on), foreground)
            width = None
            if deviation is not None:
                width = _moved(deviation[channel], volume, on) * np.float32(convention.scale.scale) * foreground
            told = {"Synthetic": True, "Modality": name, **facts, **_intensities(convention)}
            results[name] = Result(name, array, width, on, told)
        seconds = round(time.perf_counter() - started, 2)
        return {name: replace(one, sidecar={**one.sidecar, "Seconds": seconds}) for name, one in results.items()}

    def _foreground(self, scans: Mapping[str, Scan], grid: Grid) -> NDArray[np.bool_]:
        """Where any scan has foreground, (X, Y, Z) on `grid`; found on its own grid, as another blurs its edge."""
        found = np.zeros(grid.shape, dtype=np.bool_)
        for name, scan in scans.items():
            mask = self.recipe.normalisers[name].foreground_mask(scan.array, name=name)
            found |= resample(mask.astype(np.float32), scan.grid, grid, order=1, fill=0.0) >= 0.5
        return found

    def _both(
        self, volume: Volume, uncertainty: bool, progress: Callable[[float], None] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Prediction from all scans and, if wanted, spread over single scans and rotations; (M, X, Y, Z) each."""
        images, present = torch.from_numpy(volume.images), torch.from_numpy(volume.present)
        foreground = torch.from_numpy(volume.foreground.any(axis=0))
        air = self._air(present, torch.from_numpy(volume.background))
        square = self.patch_size[0] == self.patch_size[1]
        passes = 1 + (sum(1 for _ in views(present, quarters=square)) if uncertainty else 0)
        before = 0

        def one(images: Tensor, present: Tensor, foreground: Tensor) -> Tensor:
            nonlocal before
            made = self._predict(images, present, foreground, air, lambda part: tell((before + part) / passes))
            before += 1
            return made

        def tell(part: float) -> None:
            if progress is not None:
                progress(part)

        made = one(images, present, foreground).numpy()
        deviation = spread(one, images, present, foreground, quarters=square).numpy() if uncertainty else None
        return made, deviation

    def _predict(
        self,
        images: Tensor,
        present: Tensor,
        foreground: Tensor | None,
        background: Tensor,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        made = slide(
            self.runner.generate,
            images,
            present,
            self.patch_size,
            batch=self.runner.batch,
            foreground=foreground,
            background=background,
            progress=None if progress is None else lambda done, total: progress(done / total),
        )
        low, high = (
            torch.tensor([self.recipe.normalisers[name].clip[end] for name in self.modalities]) for end in (0, 1)
        )
        return made.clamp(low[:, None, None, None], high[:, None, None, None])

    def _air(self, present: Tensor, own: Tensor) -> Tensor:
        """Normalised value of air: the scans' own where they are given, the typical one of CT, else 0: (M,)."""
        typical = torch.zeros(len(self.modalities))
        for channel, name in enumerate(self.modalities):
            unit = self.recipe.normalisers[name].unit
            if unit in AIR and name in self.typical_scales:
                typical[channel] = float(self.typical_scales[name].apply(np.array(AIR[unit])))
        return torch.where(present, own, typical)

    def _facts(self, scans: Mapping[str, Scan], reference: str, uncertainty: bool) -> dict[str, Any]:
        """What is the same for all outputs of one call."""
        facts: dict[str, Any] = {
            "Sources": [scan.path.name if scan.path is not None else name for name, scan in scans.items()],
            "SourceModalities": list(scans),
            "GridOf": reference,
            "ModelSHA256": self.card.get("sha256"),
            "ModelCohort": self.card.get("cohort"),
            "GeneratedBy": {"Name": "medprism", "Version": medprism.__version__},
            "Device": self.runner.device.type,
            "Precision": self.runner.precision,
        }
        if uncertainty:
            facts["Uncertainty"] = "standard deviation over the single sources and the rotations in the X-Y plane"
        return facts


def _tensors(images: NDArray[np.float32], present: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """The arrays as tensors, copied only where torch cannot share them (read-only, not contiguous)."""
    shared = np.require(images, np.float32, ["C", "W"])
    return torch.from_numpy(shared), torch.from_numpy(np.require(present, np.bool_, ["C", "W"]))


def _intensities(convention: Convention) -> dict[str, Any]:
    return {
        "Intensity": convention.name,
        "Unit": convention.unit,
        "Range": list(convention.range),
        "Background": convention.background,
    }


def _moved(values: NDArray[np.float32], volume: Volume, to: Scan) -> NDArray[np.float32]:
    """Values on the prepared grid, on a scan's own one; 0 beyond the prepared box, where no foreground is."""
    moved: NDArray[np.float32] = resample(values, volume.grid, to.grid, order=1, fill=0.0)
    return moved


def _border(images: Tensor, present: Tensor) -> Tensor:
    """Median over the six faces of each present volume, which is air where anything is: (M,)."""
    air = torch.zeros(len(images))
    for channel in present.nonzero()[:, 0].tolist():
        image = images[channel]
        faces = [image.select(axis, end).flatten() for axis in range(3) for end in (0, -1)]
        air[channel] = torch.cat(faces).median()
    return air
