"""A model that makes the scans which a subject lacks: kept loaded, asked as often as wanted."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medprism.data.volume import AIR
from medprism.inference.inputs import Image, by_name, choose_targets
from medprism.inference.result import Convention, Intensity, Result
from medprism.inference.trained import Case, Trained, border, parts, tensors
from medprism.inference.uncertainty import spread, views
from medprism.inference.windows import slide
from medprism.io.geometry import Grid, inside, resample
from medprism.io.nifti import Scan


class Model(Trained):
    """A network that generates modalities, with all that it needs to take scans and give scans."""

    task = "transfer"

    @property
    def makes(self) -> tuple[str, ...]:
        """The modalities that it was taught to make: those of which training had a scan, or the targets chosen then."""
        taught = self.card.get("makes", self.modalities)
        return tuple(name for name in self.modalities if name in taught and name in self.typical_scales)

    def predict(self, images: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """All modalities of one prepared subject, from the scans that are present.

        Args:
            images: (M, X, Y, Z) normalised; what is absent is never read.
            present: (M,) bool.

        Returns:
            (M, X, Y, Z) float32 normalised, within each modality's clip range; air of those that it does not make.
        """
        volume, here = tensors(images, present)
        air = self._air(here, border(volume, here))
        made: NDArray[np.float32] = self._predict(volume, here, None, air).numpy()
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
        targets = choose_targets(target, by_name(images, self.takes), self.makes)
        case = self.case(images, reference)
        made, deviation = self._both(case, uncertainty, progress)
        foreground = self._foreground(case.scans, case.grid) & inside(case.volume.grid, case.grid)
        facts = {"GridOf": case.reference, **self.facts(case)}
        if uncertainty:
            facts["Uncertainty"] = "standard deviation over the single sources and the rotations in the X-Y plane"
        results = {}
        for name in targets:
            channel = self.modalities.index(name)
            convention = Convention.of(intensity, self.typical_scales[name], self.recipe.normalisers[name].unit)
            array = convention.write(_moved(made[channel], case), foreground)
            width = None
            if deviation is not None:
                width = _moved(deviation[channel], case) * np.float32(convention.scale.scale) * foreground
            told = {"Synthetic": True, "Modality": name, **facts, **_intensities(convention)}
            results[name] = Result(name, array, width, case.on, told)
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
        self, case: Case, uncertainty: bool, progress: Callable[[float], None] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Prediction from all scans and, if wanted, spread over single scans and rotations; (M, X, Y, Z) each."""
        images, present, foreground, own = case.tensors
        air = self._air(present, own)
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
            progress=parts(progress),
        )
        low, high = (
            torch.tensor([self.recipe.normalisers[name].clip[end] for name in self.modalities]) for end in (0, 1)
        )
        made = made.clamp(low[:, None, None, None], high[:, None, None, None])
        taught = torch.tensor([name in self.makes for name in self.modalities])
        return torch.where(taught[:, None, None, None], made, background[:, None, None, None])

    def _air(self, present: Tensor, own: Tensor) -> Tensor:
        """Normalised value of air: the scans' own where they are given, the typical one of CT, else 0: (M,)."""
        typical = torch.zeros(len(self.modalities))
        for channel, name in enumerate(self.modalities):
            unit = self.recipe.normalisers[name].unit
            if unit in AIR and name in self.typical_scales:
                typical[channel] = float(self.typical_scales[name].apply(np.array(AIR[unit])))
        return torch.where(present, own, typical)


def _intensities(convention: Convention) -> dict[str, Any]:
    return {
        "Intensity": convention.name,
        "Unit": convention.unit,
        "Range": list(convention.range),
        "Background": convention.background,
    }


def _moved(values: NDArray[np.float32], case: Case) -> NDArray[np.float32]:
    """Values on the prepared grid, on the outputs'; 0 beyond the prepared box, where no foreground is."""
    moved: NDArray[np.float32] = resample(values, case.volume.grid, case.grid, order=1, fill=0.0)
    return moved
