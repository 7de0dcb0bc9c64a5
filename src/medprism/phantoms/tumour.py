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
_STEP = 0.03  # of 1/ρ
_LARGEST = 0.9 * _SPACING**2 / (6 * _STEP)  # diffusivity for which an explicit step is stable
_MOST_STEPS = 1000
_DETECTABLE = 0.12  # density seen as oedema
_RIM = 0.35  # of log exposure between the border of the core and necrosis: the rim that is always alive
LOW_GRADE = 0.15  # part of the tumours that do not enhance


@dataclass(frozen=True)
class Tumour:
    """A grown tumour.

    Attributes:
        box: Growth lattice, in the person's space before mass effect.
        age: (4, X, Y, Z) on `box`: logarithms of density (for ED) and exposure (for core and NCR), each with its own
            irregularities and minus its threshold (> 0 inside), and the density c.
        around: Lattice of `displacement`.
        displacement: (3, X, Y, Z): image space → person space before mass effect, mm.
        enhances: False for a low-grade tumour, whose core is all NCR (non-enhancing tumour has that label too).
        seed: Where it began, mm.
        push: Largest velocity of the mass effect, mm.
    """

    box: Box
    age: Array
    around: Box
    displacement: Array
    enhances: bool
    seed: tuple[float, float, float]
    push: float

    def before(self, points: Array) -> Array:
        """Where tissue (N, 3) seen in the image was before the tumour pushed it, mm."""
        return move(points, self.displacement, self.around)

    def parts(self, points: Array, grey: Array) -> Array:
        """What the tumour makes of brain tissue, CSF left out.

        Args:
            points: (N, 3) before mass effect, mm.
            grey: (N,) fraction of grey matter; the cortex swells less than the white matter.

        Returns:
            (4, N) fractions of NCR, ED, ET and non-enhancing core.
        """
        parts = np.zeros((4, points.shape[0]), np.float32)
        corner = np.asarray(self.box.origin, np.float32)
        near = np.flatnonzero(((points > corner) & (points < corner + (_SIDE - 1) * _SPACING)).all(1))
        oedema, core, necrosis, density = sample(self.age, self.box, points[near])
        inside = _step(core, 0.06)
        dead = inside * _step(necrosis, 0.05)
        # oedema lies between the fibres: it never replaces all of the tissue, and fades outwards
        wet = _step(oedema, 0.15) * np.clip(0.6 + density, 0, 0.95) * (1 - 0.55 * grey[near])
        parts[1, near] = (1 - inside) * wet
        if self.enhances:
            parts[0, near] = dead
            parts[2, near] = inside - dead
        else:
            parts[3, near] = inside
        return parts


def grow(rng: np.random.Generator, anatomy: Anatomy, low_grade: float = LOW_GRADE) -> Tumour:
    """Seed a tumour in the cerebrum, let it grow to a random size, and derive its parts and its mass effect.

    Args:
        rng: Randomness of the tumour.
        anatomy: Of the person.
        low_grade: Probability that it does not enhance.
    """
    enhances = bool(rng.random() >= low_grade)
    seed = _seed(rng, anatomy)
    x, y, z = (s - (_SIDE - 1) / 2 * _SPACING for s in seed)
    box = Box((x, y, z), _SPACING, (_SIDE,) * 3)
    healthy = tissue(anatomy, anatomy.to_template(box.centres()))
    white, grey = (healthy.fractions[:2] * (healthy.inside > 0.5)).reshape(2, *box.shape)
    volume = float(np.exp(rng.uniform(np.log(15e3), np.log(130e3))))  # mm³ of the whole tumour
    # D and ρ differ from place to place, so fronts are lobed
    lobes = np.exp(0.7 * smooth_noise(rng, box, 6.0, 2))
    diffusivity = np.minimum(_WIDTH**2 * (white + _GREY_TO_WHITE * grey) * lobes[0], _LARGEST)
    density, exposure = _fisher(diffusivity, np.clip(lobes[1], 0.3, 2) * (diffusivity > 0.05), box, volume)

    # oedema follows the fibres: grey matter shows less of it
    visible = density * (0.35 + 0.65 * gaussian_filter(white, 0.7)) * (white + grey)
    noise = smooth_noise(rng, box, 4.0, 3)
    oedema = np.log(visible + 1e-4) - np.log(_DETECTABLE) + 0.4 * noise[0]
    age = np.log(exposure + 1e-4)
    core = age + 0.35 * noise[1]
    core -= np.quantile(core[oedema > 0], 1 - rng.uniform(0.25, 0.5))
    # blood comes from outside: what is near a border lives on
    necrosis = np.log(gaussian_filter(exposure, 3.0 / _SPACING) + 1e-4) + 0.4 * noise[2]
    necrosis -= np.quantile(necrosis[core > 0], 1 - rng.uniform(0.2, 0.6))
    necrosis = np.minimum(necrosis, core - _RIM)
    push = float(rng.uniform(1.0, 5.0) * (1.0 if enhances else 0.4) * min(1.0, (volume / 60e3) ** (1 / 3)))
    around = anatomy.template.coarse
    return Tumour(
        box,
        np.asarray(np.stack([oedema, core, necrosis, density]), np.float32),
        around,
        _mass_effect(density, box, around, push),
        enhances,
        seed,
        push,
    )


def _seed(rng: np.random.Generator, anatomy: Anatomy) -> tuple[float, float, float]:
    """A point of white matter of the cerebrum, away from the midline and the surface."""
    coarse = anatomy.template.coarse
    points = coarse.centres()
    healthy = tissue(anatomy, anatomy.to_template(points))
    depth = gaussian_filter(healthy.inside.reshape(coarse.shape), 1.5).ravel()
    x, y, z = points.T
    cerebrum = (z > -12) & ~((y < -35) & (z < 4)) & (np.abs(x) > 14)
    white = np.maximum(healthy.fractions[0], 0)  # interpolation undershoots
    weight = np.where(cerebrum & (depth > 0.8), white, 0).astype(np.float64)
    at = points[rng.choice(weight.size, p=weight / weight.sum())]
    return float(at[0]), float(at[1]), float(at[2])


def _fisher(diffusivity: Array, rate: Array, box: Box, volume: float) -> tuple[Array, Array]:
    """Density c and exposure ∫ c dt when the detectable tumour first reaches `volume` mm³; explicit steps."""
    # flux through a face: harmonic mean of its two sides, so that nothing passes into CSF
    faces = []
    for axis in range(3):
        a, b = _ends(diffusivity, axis)
        faces.append(2 * a * b / np.maximum(a + b, 1e-6) * np.float32(_STEP / box.spacing**2))
    x, y, z = (np.square((np.arange(n, dtype=np.float32) - (n - 1) / 2) * box.spacing) for n in box.shape)
    density = np.exp(-(x[:, None, None] + y[:, None] + z) / (2 * 3.0**2)) * (rate > 0)
    exposure = np.zeros_like(density)
    enough = volume / box.spacing**3
    for step in range(_MOST_STEPS):
        change = np.float32(_STEP) * rate * density * (1 - density)
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


def _mass_effect(density: Array, box: Box, around: Box, push: float) -> Array:
    """Flow along the gradient of the density: points of the image are pulled back towards the tumour."""
    reach = 7.0  # mm over which the brain yields
    points = around.centres()
    corner = np.asarray(box.origin, np.float32)
    within = ((points >= corner) & (points <= corner + (_SIDE - 1) * _SPACING)).all(1)
    wide = np.where(within, sample(density[None], box, points)[0], 0).reshape(around.shape)
    pull = np.stack(list(np.gradient(gaussian_filter(wide, reach / around.spacing), around.spacing)))
    largest = float(np.sqrt(np.square(pull).sum(0)).max())
    return flow(np.asarray(pull * (push / max(largest, 1e-6)), np.float32), around)


def _step(value: Array, width: float) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(value / width, -30, 30))), np.float32)
