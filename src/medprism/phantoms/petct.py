"""The scanner of the body phantoms: CT, and FDG-PET with and without correction of attenuation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from medprism.errors import UserError
from medprism.phantoms.box import Array
from medprism.phantoms.projector import projector

_FWHM_TO_SIGMA = 1 / 2.3548

# CT number → attenuation at 511 keV for a tube at 120 kV, in 1/cm: 9.6e-5 (HU + 1000) below 47 HU, above that
# 5.10e-5 (HU + 1000) + 4.71e-2: Carney et al. 2006, Medical Physics 33:976, 10.1118/1.2174132.
_BREAK, _SOFT, _BONE, _OFFSET = 47.0, 9.6e-5, 5.10e-5, 4.71e-2

# Scattered photons per true one: 30 % of all that is detected, as 3-D PET of a body has it (30 to 40 %, Bailey et al.,
# Positron Emission Tomography, Springer 2005, chapter 6); spread of their distribution across the bins and slices, mm.
_SCATTER, _SCATTER_SPREAD = 0.43, 75.0


@dataclass(frozen=True)
class PetCt:
    """A preset.

    Attributes:
        name: "A" or "B".
        resolution: Full width at half maximum of the detectors' point spread, mm.
        smoothing: The same of the filter after the reconstruction, mm.
        sensitivity: True counts per mm³ and unit of SUV if nothing were attenuated.
        randoms: Random coincidences per true one.
        angles: Directions over half a turn.
        subsets: Of the reconstruction.
        iterations: Of the reconstruction.
        gain: Factor from SUV to the arbitrary unit of the uncorrected image.
        ct_blur: Full width at half maximum of the CT's point spread, mm.
        ct_noise: Standard deviation of the CT's noise in voxels of 4 mm, HU.
    """

    name: str
    resolution: float
    smoothing: float
    sensitivity: float
    randoms: float
    angles: int
    subsets: int
    iterations: int
    gain: float
    ct_blur: float
    ct_noise: float


# Resolution: A as of LSO scanners of about 2010 (4.4 to 5 mm by NEMA NU 2; Jakoby et al. 2011, Phys. Med. Biol.
# 56:2375), B as of BGO scanners of about 2000 (6 to 6.5 mm). Filters, iterations and subsets are usual ones. Counts and
# noise are chosen such that the spread in the liver is about 10 % for A and 20 % for B, which is as noisy as
# patient 042 of ACRIN-NSCLC-FDG-PET.
SCANNERS: dict[str, PetCt] = {
    "A": PetCt("A", 5.0, 5.0, 28.0, 0.5, 120, 12, 3, 1200, 2.0, 9.0),
    "B": PetCt("B", 6.3, 5.0, 6.0, 1.0, 96, 12, 3, 1500, 3.0, 14.0),
}


def petct_preset(name: str) -> PetCt:
    """The preset of that name.

    Raises:
        UserError: There is none.
    """
    if name not in SCANNERS:
        raise UserError(f"expected scanner {', '.join(SCANNERS)} or both, got {name!r}; choose one of them")
    return SCANNERS[name]


def attenuation(hu: Array) -> Array:
    """Attenuation at 511 keV, 1/mm, by CT number."""
    above = np.asarray(hu, np.float32) + np.float32(1000)
    per_cm = np.where(hu < _BREAK, _SOFT * above, _BONE * above + _OFFSET)
    return np.asarray(np.maximum(per_cm, 0) / 10, np.float32)


def scan_ct(hu: Array, spacing: float, scanner: PetCt, rng: np.random.Generator) -> Array:
    """What the CT shows: blurred, noisier where little passes, in whole HU from −1024 to 3071.

    Args:
        hu: (X, Y, Z) the truth.
        spacing: mm.
        scanner: Preset.
        rng: Source of the noise.
    """
    sigma = scanner.ct_blur * _FWHM_TO_SIGMA / spacing
    image = gaussian_filter(hu, sigma) if sigma > 0.25 else hu
    # photons left after the widest and the narrowest way through each slice, against those after 300 mm of water
    water = np.maximum(hu + 1000, 0) / 1000
    longest = np.sqrt(water.sum(0).max(0) * water.sum(1).max(0)) * spacing
    noise = scanner.ct_noise * (4 / spacing) * np.exp(0.019 * (longest - 300) / 2).clip(0.3, 3)
    grain = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.55) / np.float32(0.40)
    return np.asarray(np.rint(np.clip(image + noise * grain, -1024, 3071)), np.float32)


def scan_pet(suv: Array, hu: Array, spacing: float, scanner: PetCt, rng: np.random.Generator) -> tuple[Array, Array]:
    """One measurement, reconstructed with and without correction.

    Trues are the line integrals of the blurred uptake times exp(−∫μ). Scatter is a blurred copy of the trues, randoms
    are flat. With correction, attenuation, scatter and randoms are known to the reconstruction; without, only the
    randoms are, as scanners do it.

    Args:
        suv: (X, Y, Z) true uptake.
        hu: (X, Y, Z) true CT numbers.
        spacing: mm.
        scanner: Preset.
        rng: Source of the counts.

    Returns:
        Corrected image in SUV and uncorrected image in arbitrary units, (X, Y, Z) each.
    """
    x, y, _ = suv.shape
    rays = projector((x, y), spacing, scanner.angles, scanner.subsets)
    blurred = gaussian_filter(suv, scanner.resolution * _FWHM_TO_SIGMA / spacing)
    mu = gaussian_filter(attenuation(hu), scanner.resolution * _FWHM_TO_SIGMA / spacing)
    through = np.exp(-rays.forward(mu))
    per_line = np.float32(scanner.sensitivity * spacing**2 / scanner.angles)
    trues = per_line * through * rays.forward(blurred)
    scatter = gaussian_filter1d(trues, _SCATTER_SPREAD / spacing, axis=1, mode="constant")
    scatter = np.float32(_SCATTER) * gaussian_filter1d(scatter, 0.5 * _SCATTER_SPREAD / spacing, axis=2)
    randoms = np.broadcast_to(np.float32(scanner.randoms) * trues.mean((0, 1)), trues.shape)
    counts = rng.poisson(trues + scatter + randoms).astype(np.float32)
    corrected = rays.osem(counts, per_line * through, scatter + randoms, scanner.iterations)
    uncorrected = rays.osem(counts, np.full_like(through, per_line), randoms, scanner.iterations)
    sigma = scanner.smoothing * _FWHM_TO_SIGMA / spacing
    pet, nac = (np.asarray(gaussian_filter(image, sigma), np.float32) for image in (corrected, uncorrected))
    return pet, nac * np.float32(scanner.gain)
