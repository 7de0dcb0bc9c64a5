"""A glioma that grows in one person's brain and pushes it aside.

Growth is the Fisher–Kolmogorov equation ∂c/∂t = ∇·(D ∇c) + ρ c (1 − c) with D five times larger in white than in grey
matter (Swanson et al. 2000, Cell Proliferation 33:317, 10.1046/j.1365-2184.2000.00177.x) and no growth into CSF. Mass
effect pushes along −∇c, the force that Clatz et al. 2005 (IEEE TMI 24:1334, 10.1109/TMI.2005.857217) use, here as a
velocity whose flow cannot fold. The parts of the tumour follow its age: where the exposure e = ∫ c dt is largest it is
necrotic (NCR), around that lies the living rim that enhances (ET), around that infiltrated oedema (ED).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medprism.phantoms.anatomy import Anatomy, tissue
from medprism.phantoms.box import Array, Box, sample, smooth_noise
from medprism.phantoms.deformation import flow, move

_SPACING = 2.0  # mm, of the growth lattice
_SIDE = 64  # voxels, of the growth lattice: a cube of 128 mm holds the largest tumour
_WIDTH = 3.0  # mm: √(D/ρ) in white matter, the length over which the front decays
_GREY_TO_WHITE = 0.2  # ratio of the diffusivities
_STEP = 0.05  # of 1/ρ; explicit, stable below spacing² / (6 D)
_MOST_STEPS = 600
_DETECTABLE = 0.12  # density seen as oedema


@dataclass(frozen=True)
class Tumour:
    """A grown tumour.

    Attributes:
        box: Growth lattice, in the person's space before mass effect.
        age: (4, X, Y, Z): log of the exposure for ED, for the core and for NCR, each with its own irregularities and
            minus its threshold (> 0 inside), and the density c.
        displacement: (3, X, Y, Z) on the lattice `around`: image space → person space before mass effect, mm.
        around: Lattice of `displacement`.
        enhances: False for a low-grade tumour, whose core is all NCR (non-enhancing tumour has that label too).
        seed: Where it began, mm.
        push: Mass effect, mm.
    """

    box: Box
    age: Array
    displacement: Array
    around: Box
    enhances: bool
    seed: tuple[float, float, float]
    push: float

    def before(self, points: Array) -> Array:
        """Where tissue (N, 3) seen in the image was before the tumour pushed it, mm."""
        return move(points, self.displacement, self.around)

    def parts(self, points: Array) -> Array:
        """Fractions (4, N) of NCR, ED, ET and non-enhancing core at points (N, 3) before mass effect."""
        oedema, core, necrosis, density = sample(self.age, self.box, points)
        inside = _step(core, 0.06)
        dead = inside * _step(necrosis, 0.05)
        # cells infiltrate between the fibres: oedema never replaces all of the tissue and fades outwards
        wet = (1 - inside) * _step(oedema, 0.12) * np.clip(0.55 + density, 0, 0.95)
        zero = np.zeros_like(dead)
        if self.enhances:
            return np.stack([dead, wet, inside - dead, zero])
        return np.stack([zero, wet, zero, inside])


def grow(rng: np.random.Generator, anatomy: Anatomy) -> Tumour:
    """Seed a tumour in the cerebrum, let it grow to a random size, and derive its parts and its mass effect."""
    enhances = bool(rng.random() >= 0.15)
    seed = _seed(rng, anatomy)
    origin = np.asarray(seed) - (_SIDE - 1) / 2 * _SPACING
    box = Box((float(origin[0]), float(origin[1]), float(origin[2])), _SPACING, (_SIDE,) * 3)
    fractions, inside = tissue(anatomy, box.centres())
    fractions = (fractions * (inside > 0.5)).reshape(3, *box.shape)
    white, grey = fractions[0], fractions[1]
    volume = float(np.exp(rng.uniform(np.log(12e3), np.log(120e3))))  # mm³ of the whole tumour
    density, exposure = _fisher(_diffusivity(rng, box, white, grey), box, volume)

    # oedema follows the fibres: grey matter shows less of it
    visible = density * (0.35 + 0.65 * gaussian_filter(white, 0.7)) * (white + grey)
    noise = smooth_noise(rng, box, 5.0, 3)
    log_age = np.log(exposure + 1e-4)
    core_age = log_age + 0.25 * noise[1]
    whole = visible > _DETECTABLE * 0.5
    core_at = float(np.quantile(core_age[whole], 1 - rng.uniform(0.25, 0.55)))
    core = core_age > core_at
    dead_age = log_age + 0.30 * noise[2]
    dead_at = float(np.quantile(dead_age[core], 1 - rng.uniform(0.15, 0.5)))
    wet = np.log(visible + 1e-4) - np.log(_DETECTABLE) + 0.35 * noise[0]
    age = np.stack([wet, core_age - core_at, dead_age - dead_at, density])

    push = float(rng.uniform(1.0, 5.0) * (1.0 if enhances else 0.4) * min(1.0, (volume / 60e3) ** (1 / 3)))
    displacement, around = _mass_effect(density, box, anatomy.template.coarse, push)
    return Tumour(box, np.asarray(age, np.float32), displacement, around, enhances, seed, push)


def _seed(rng: np.random.Generator, anatomy: Anatomy) -> tuple[float, float, float]:
    """A point of white matter of the cerebrum, away from the midline and the surface."""
    coarse = anatomy.template.coarse
    points = coarse.centres()
    fractions, inside = tissue(anatomy, points)
    depth = gaussian_filter(inside.reshape(coarse.shape), 1.5).ravel()
    x, y, z = points.T
    cerebrum = (z > -12) & ~((y < -35) & (z < 4)) & (np.abs(x) > 14)
    weight = np.where(cerebrum & (depth > 0.9), np.maximum(fractions[0], 0), 0).astype(np.float64)
    at = points[rng.choice(weight.size, p=weight / weight.sum())]
    return float(at[0]), float(at[1]), float(at[2])


def _diffusivity(rng: np.random.Generator, box: Box, white: Array, grey: Array) -> Array:
    """D in mm² per 1/ρ, zero in CSF and outside, with random differences so that fronts are lobed."""
    lobes = np.clip(np.exp(0.6 * smooth_noise(rng, box, 7.0)[0]), 0.2, 2.0)
    diffusivity = _WIDTH**2 * (white + _GREY_TO_WHITE * grey) * lobes
    return np.asarray(np.minimum(diffusivity, 0.9 * _SPACING**2 / (6 * _STEP)), np.float32)


def _fisher(diffusivity: Array, box: Box, volume: float) -> tuple[Array, Array]:
    """Density c and exposure ∫ c dt when the detectable tumour first reaches `volume` mm³."""
    tissue_here = diffusivity > 0.05
    # flux through a face: harmonic mean of its two sides, so that nothing passes into CSF
    faces = []
    for axis in range(3):
        a, b = _ends(diffusivity, axis)
        faces.append(2 * a * b / np.maximum(a + b, 1e-6) * np.float32(_STEP / box.spacing**2))
    offset = box.centres() - box.world(np.asarray([[(_SIDE - 1) / 2] * 3]))
    density = np.exp(-np.square(offset).sum(1) / (2 * 3.0**2)).reshape(box.shape).astype(np.float32) * tissue_here
    exposure = np.zeros_like(density)
    enough = volume / box.spacing**3
    for step in range(_MOST_STEPS):
        change = np.float32(_STEP) * density * (1 - density) * tissue_here
        for axis, face in enumerate(faces):
            a, b = _ends(density, axis)
            flux = face * (b - a)
            into_a, into_b = _ends(change, axis)
            into_a += flux
            into_b -= flux
        density += change
        exposure += np.float32(_STEP) * density
        if step % 5 == 4 and np.count_nonzero(density > _DETECTABLE) >= enough:
            break
    return density, exposure


def _ends(array: Array, axis: int) -> tuple[Array, Array]:
    """Views without the last and without the first layer along an axis."""
    low = [slice(None)] * 3
    high = [slice(None)] * 3
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return array[tuple(low)], array[tuple(high)]


def _mass_effect(density: Array, box: Box, around: Box, push: float) -> tuple[Array, Box]:
    """Flow along the gradient of the density: points of the image are pulled back towards the tumour."""
    reach = 7.0  # mm over which the brain yields
    wide = sample(density[None], box, around.centres()).reshape(around.shape)
    wide = _outside_zero(wide, box, around)
    pull = np.stack(np.gradient(gaussian_filter(wide, reach / around.spacing), around.spacing))
    length = float(np.sqrt(np.square(pull).sum(0)).max())
    return flow(np.asarray(pull * (push / max(length, 1e-6)), np.float32), around), around


def _outside_zero(values: Array, box: Box, around: Box) -> Array:
    """Zero outside of `box`, where sampling repeats its border."""
    points = around.centres().reshape(*around.shape, 3)
    low = np.asarray(box.origin)
    high = low + (np.asarray(box.shape) - 1) * box.spacing
    return np.asarray(values * ((points >= low) & (points <= high)).all(-1), np.float32)


def _step(value: Array, width: float) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(value / width, -30, 30))), np.float32)
