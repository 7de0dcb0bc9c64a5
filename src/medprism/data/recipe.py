"""How scans are prepared: everything that decides what a prepared voxel holds, stored with caches and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medprism.data.intensity import DEFAULT_NORMALISERS, Normaliser
from medprism.data.modalities import canonical
from medprism.errors import UserError

LARGEST = 31.0
"""Of a normalised value: caches hold 16-bit steps of 2⁻¹⁰, and networks want numbers around 1."""


@dataclass(frozen=True)
class Recipe:
    """How the scans of a subject become one array.

    Attributes:
        modalities: Canonical names in the order of the channels.
        normalisers: Modality -> how its intensities are normalised; exactly those of `modalities`.
        spacing: Voxel sides (X, Y, Z) in mm, or None for those of the reference scan.
        reference: Modality whose grid all scans of a subject are resampled to, where the subject has it; otherwise,
            and for None, the first present one in the order of `modalities`.
        margin: Voxels kept around the foreground.

    Raises:
        UserError: A spacing, margin or clip that cannot be, or a modality that the cohort does not have.
    """

    modalities: tuple[str, ...]
    normalisers: Mapping[str, Normaliser]
    spacing: tuple[float, float, float] | None = None
    reference: str | None = None
    margin: int = 4

    def __post_init__(self) -> None:
        if self.spacing is not None and not all(0 < side < float("inf") for side in self.spacing):
            raise UserError(f"expected a spacing of three positive sides in mm, got {self.spacing}")
        if self.margin < 0:
            raise UserError(f"expected a margin of 0 or more voxels, got {self.margin}")
        if self.reference is not None and self.reference not in self.modalities:
            raise UserError(f"expected a reference among {', '.join(self.modalities)}, got {self.reference}")
        if set(self.normalisers) != set(self.modalities):
            raise UserError(
                f"expected normalisers for {', '.join(self.modalities)}, got {', '.join(sorted(self.normalisers))}"
            )

        for modality, normaliser in self.normalisers.items():
            if max(map(abs, normaliser.clip)) > LARGEST:
                raise UserError(
                    f"expected normalised values within ±{LARGEST:g}, got {normaliser.clip} for {modality}; "
                    "choose a smaller clip"
                )

    @classmethod
    def of(
        cls,
        modalities: Sequence[str],
        *,
        spacing: Sequence[float] | None = None,
        reference: str | None = None,
        normalisers: Mapping[str, Normaliser] | None = None,
        margin: int = 4,
    ) -> Recipe:
        """The default recipe for these modalities, changed where something is given.

        Args:
            modalities: Canonical names in the order of the channels.
            spacing: Voxel sides in mm, or None.
            reference: Modality (any alias) whose grid is used, or None.
            normalisers: Those that replace a default, by modality (any alias).
            margin: Voxels kept around the foreground.

        Raises:
            UserError: As for the class.
        """
        chosen = {modality: DEFAULT_NORMALISERS[modality] for modality in modalities}
        chosen.update({canonical(name): normaliser for name, normaliser in (normalisers or {}).items()})
        sides = None if spacing is None else tuple(float(side) for side in spacing)
        if sides is not None and len(sides) != 3:
            raise UserError(f"expected a spacing of three sides in mm, got {len(sides)}")
        return cls(tuple(modalities), chosen, sides, None if reference is None else canonical(reference), margin)

    def reference_of(self, present: Sequence[str]) -> str:
        """The modality whose grid is used for a subject with these scans (at least one)."""
        if self.reference in present:
            return str(self.reference)
        return next(modality for modality in self.modalities if modality in present)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "modalities": list(self.modalities),
            "normalisers": {modality: self.normalisers[modality].to_dict() for modality in self.modalities},
            "spacing": None if self.spacing is None else list(self.spacing),
            "reference": self.reference,
            "margin": self.margin,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`, also after JSON has made lists of the tuples."""
        spacing = values["spacing"]
        return cls(
            modalities=tuple(values["modalities"]),
            normalisers={name: Normaliser.from_dict(value) for name, value in values["normalisers"].items()},
            spacing=None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
            reference=values["reference"],
            margin=int(values["margin"]),
        )
