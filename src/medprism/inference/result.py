"""From normalised predictions to a file that says what it is: on the input's grid, in declared intensities."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medprism.data.intensity import Scale
from medprism.data.volume import AIR
from medprism.io.atomic import refuse_existing, whole_file
from medprism.io.nifti import Scan, save_like, sidecar_path

Intensity = Literal["like-train", "unit"]


@dataclass(frozen=True)
class Convention:
    """What the numbers in an output mean.

    Attributes:
        name: `like-train`: as the median training subject's scan of this modality (CT in HU and PET in SUV are absolute
            anyway; MRI has no absolute scale, so this is a choice). `unit`: the normaliser's clip range as 0 to 1.
        unit: of the intensities.
        scale: normalised values to intensities, by `Scale.invert`.
        background: intensity outside the foreground of the sources.
    """

    name: Intensity
    unit: str
    scale: Scale
    background: float

    @classmethod
    def of(cls, name: Intensity, typical: Scale, unit: str) -> "Convention":
        """The convention of one modality.

        Args:
            name: which.
            typical: the modality's median scale in training.
            unit: of its normaliser.
        """
        if name == "like-train":
            plain = cls(name, unit, typical, 0.0)
            # Air in HU is the darkest that the window shows; everywhere else it is 0, whatever the range.
            return replace(plain, background=max(AIR[unit], plain.range[0])) if unit in AIR else plain
        width = typical.high - typical.low
        scale = Scale(offset=-typical.low / width, scale=1 / width, low=typical.low, high=typical.high)
        return cls(name, "1", scale, 0.0)

    @property
    def range(self) -> tuple[float, float]:
        """Least and largest intensity within the foreground."""
        low, high = self.scale.invert(np.array([self.scale.low, self.scale.high]))
        return float(low), float(high)

    def write(self, values: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Intensities (X, Y, Z) of normalised values, the background's exactly, within the declared range."""
        made = np.clip(self.scale.invert(values), *self.range)
        return np.where(foreground, made, np.float32(self.background)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Result:
    """One synthetic scan.

    Attributes:
        modality: what it is of.
        array: (X, Y, Z) float32 on `reference.grid`, in RAS+ order.
        uncertainty: (X, Y, Z) standard deviation in the same unit, or None.
        reference: the given scan whose grid it is on.
        sidecar: what is known about it, plain JSON.
    """

    modality: str
    array: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    reference: Scan
    sidecar: Mapping[str, Any]

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the scan, its JSON sidecar and, if there is one, the uncertainty map beside it.

        The sidecar comes first and the scan last: a scan that is there is complete, and a sidecar without one tells of
        a run that was stopped.

        Args:
            path: `.nii` or `.nii.gz`.
            force: overwrite.

        Returns:
            `path`.

        Raises:
            UserError: a file exists without `force`, or the system refused to write.
        """
        path = Path(path)
        beside = uncertainty_path(path)
        outputs = [path, sidecar_path(path)]
        if self.uncertainty is not None:
            outputs += [beside, sidecar_path(beside)]
        for output in outputs:
            refuse_existing(output, force=force)
        with whole_file(sidecar_path(path)) as file:
            file.write((json.dumps(dict(self.sidecar), indent=2) + "\n").encode())
        if self.uncertainty is not None:
            told = {**self.sidecar, "Content": "standard deviation", "Range": [0.0, float(self.uncertainty.max())]}
            save_like(self.uncertainty, self.reference, beside, kind="image", force=force, sidecar=told)
        return save_like(self.array, self.reference, path, kind="image", force=force)


def uncertainty_path(path: Path) -> Path:
    """`t2f.nii.gz` to `t2f_uncertainty.nii.gz`, in BIDS `…_desc-synthetic_FLAIR` to `…_desc-uncertainty_FLAIR`."""
    stem = sidecar_path(path).stem
    suffix = path.name[len(stem) :]
    if "_desc-synthetic_" in stem:
        return path.with_name(stem.replace("_desc-synthetic_", "_desc-uncertainty_") + suffix)
    return path.with_name(f"{stem}_uncertainty{suffix}")
