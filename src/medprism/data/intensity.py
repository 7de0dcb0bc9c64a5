"""Invertible intensity normalisers, one per modality, stored with the model.

Every normaliser is affine with a clip, y = clip((x − offset) / scale, low, high), so that an output can be given back
in HU, SUV or a scan's own units exactly wherever nothing was clipped.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medprism.data.foreground import Foreground, foreground
from medprism.errors import UserError

Kind: TypeAlias = Literal["zscore", "percentile", "median", "window", "suv"]

USUAL = 0.25  # what `median` makes of the median: as much as an SUV of 0.6, which is usual in a body, becomes in PET


@dataclass(frozen=True)
class Scale:
    """The normalisation of one scan: y = clip((x − offset) / scale, low, high).

    Attributes:
        offset: Intensity that becomes 0, in the scan's unit.
        scale: Intensity difference that becomes 1, positive.
        low: Least normalised value.
        high: Largest normalised value.
    """

    offset: float
    scale: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.offset, self.scale]).all() and self.scale > 0 and self.low < self.high):
            msg = f"expected finite numbers, scale > 0 and low < high, got {self}"
            raise ValueError(msg)

    def apply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Normalised values, float32, of intensities."""
        y = (np.asarray(x, dtype=np.float32) - np.float32(self.offset)) / np.float32(self.scale)
        return np.asarray(np.clip(y, self.low, self.high), dtype=np.float32)

    def invert(self, y: NDArray[Any]) -> NDArray[np.float32]:
        """Intensities, float32, of normalised values: the inverse of `apply` where nothing was clipped."""
        return np.asarray(y, dtype=np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> "Scale":
        """The inverse of `to_dict`."""
        return cls(**values)


@dataclass(frozen=True)
class Normaliser:
    """How scans of one modality are normalised.

    Attributes:
        kind: `zscore`: mean 0 and standard deviation 1 over the foreground. `percentile`: two percentiles of the
            foreground become 0 and 1. `median`: 0 stays 0 and the median of the foreground becomes 1/4; unlike a high
            percentile it does not follow the brain, bladder or tumour that the field of view happens to hold.
            `window`, `suv`: two fixed intensities become the ends of `clip`; `suv` also refuses a PET that is
            evidently in Bq/mL.
        foreground: How the foreground of a scan is found (see `medprism.data.foreground`).
        unit: Unit of the intensities: "HU", "SUV" or "a.u.".
        clip: Least and largest normalised value.
        limits: The two percentiles, or the two intensities; unused by `zscore` and `median`.
    """

    kind: Kind
    foreground: Foreground
    unit: str
    clip: tuple[float, float]
    limits: tuple[float, float] = (0.0, 100.0)

    def foreground_mask(self, array: NDArray[Any], *, name: str = "the scan") -> NDArray[np.bool_]:
        """Foreground of an image (X, Y, Z) in its own unit: bool (X, Y, Z).

        Raises:
            UserError: No voxel is foreground; the message names `name`.
        """
        mask = foreground(array, self.foreground)
        if not mask.any():
            msg = (
                f"expected {self.foreground} foreground in {name}, got none (values from {array.min():g} to "
                f"{array.max():g}); check its modality and unit ({self.unit})"
            )
            raise UserError(msg)
        return mask

    def fit(self, array: NDArray[Any], mask: NDArray[np.bool_], *, name: str = "the scan") -> Scale:
        """The scale of one scan from its foreground.

        Args:
            array: (X, Y, Z) in its own unit.
            mask: bool (X, Y, Z), its foreground.
            name: The scan in messages.

        Raises:
            UserError: The foreground is empty or constant, or a PET is not in SUV.
        """
        values = array[mask]
        if values.size == 0:
            msg = f"expected foreground in {name}, got an empty mask; check its modality and unit ({self.unit})"
            raise UserError(msg)
        # Half of a body never has an SUV of 50; Bq/mL are in the thousands.
        if self.kind == "suv" and (median := float(np.median(values))) > 50:
            msg = f"expected SUV in {name}, got a median of {median:g} in the body; convert Bq/mL to SUV first"
            raise UserError(msg)
        low, high = self.clip
        if self.kind == "zscore":
            offset, scale = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        elif self.kind == "percentile":
            offset, scale = (float(p) for p in np.percentile(values, self.limits))
            scale -= offset
        elif self.kind == "median":
            offset, scale = 0.0, float(np.median(values)) / USUAL
        else:
            scale = (self.limits[1] - self.limits[0]) / (high - low)
            offset = self.limits[0] - low * scale
        # Float noise on a constant foreground is no contrast either.
        if not scale > 1e-6 * np.abs(values).max():
            msg = f"expected contrast in the foreground of {name}, got {values[0]:g} nearly everywhere; leave it out"
            raise UserError(msg)
        return Scale(offset, scale, low, high)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Normaliser":
        """The inverse of `to_dict`, also after JSON has made lists of the tuples."""
        pairs = {key: (float(values[key][0]), float(values[key][1])) for key in ("clip", "limits")}
        return cls(**{**values, **pairs})


_MRI = Normaliser("zscore", "auto", "a.u.", clip=(-5.0, 5.0))

# By canonical modality name.
DEFAULT_NORMALISERS: dict[str, Normaliser] = {
    **dict.fromkeys(("t1n", "t1c", "t2w", "t2f", "pd", "mra", "dwi", "adc"), _MRI),
    "ct": Normaliser("window", "body", "HU", clip=(-2.0, 2.0), limits=(-1000.0, 1000.0)),
    "pet": Normaliser("suv", "uptake", "SUV", clip=(0.0, 8.0), limits=(0.0, 20.0)),
    "nac": Normaliser("median", "emission", "a.u.", clip=(0.0, 8.0)),
}
