"""Lesions of the body phantoms: where, how large, of what shape, how bright.

Sites: nodes at named stations, the rest anywhere in their organ. The SUV of untreated tumours is log-normal with
medians of 7 to 9 (the primary of NSCLC and of squamous cell carcinoma of the head and neck are reported with a mean
maximum near 10, their nodes lower); sizes, numbers and mixtures are chosen such that a cohort looks like one of lung
cancer, lymphoma and melanoma (torso), or of carcinoma of the throat (head and neck).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from medprism.phantoms.body_canvas import Canvas
from medprism.phantoms.body_tissue import NAMES, Tissue
from medprism.phantoms.box import Array
from medprism.phantoms.shapes import Ellipsoid, Field, Grown, Point

# Stations of lymph nodes in the template.
_CHEST_NODES: tuple[Point, ...] = (
    (16, -6, 168),
    (-18, -4, 160),
    (14, 4, 136),
    (-28, 0, 126),
    (2, -26, 88),
    (42, -8, 98),
    (-42, -10, 102),
    (10, 34, 150),
    (50, 18, 236),
    (-50, 18, 236),
)
_BELLY_NODES: tuple[Point, ...] = (
    (-18, -18, -110),
    (22, -6, -130),
    (-20, -14, -150),
    (6, 2, -120),
    (-26, -10, -180),
    (50, -20, -240),
    (-52, -20, -240),
    (84, 52, -300),
    (-84, 52, -300),
    (128, 14, 168),
    (-128, 14, 168),
    (-10, 20, -60),
)
_THROAT: dict[str, Point] = {
    "tonsil": (18, 12, 350),
    "base of tongue": (9, 24, 332),
    "tongue": (16, 56, 344),
    "larynx": (9, 26, 292),
    "hypopharynx": (14, 2, 304),
    "nasopharynx": (10, 8, 384),
}
# With how often each gets the nodes: levels II, III, IV, I, V, behind the pharynx.
_NECK_NODES: tuple[tuple[Point, float], ...] = (
    ((38, -2, 346), 0.40),
    ((35, 2, 312), 0.25),
    ((31, 4, 270), 0.12),
    ((28, 46, 318), 0.08),
    ((50, -32, 306), 0.10),
    ((18, -8, 382), 0.05),
)


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        site: Organ or kind of place.
        centre: mm of the template.
        radius: Mean, mm.
        suv: Mean uptake of its living part.
        hu: Mean CT number.
        necrosis: Part of the radius that is dead, 0 for none.
        seed: Of its shape.
    """

    site: str
    centre: Point
    radius: float
    suv: float
    hu: float
    necrosis: float
    seed: int


def has_lesions(seed: int, index: int) -> bool:
    """One of each two neighbours 2k and 2k + 1 of a cohort has lesions; which, the seed says."""
    return bool(np.random.default_rng([seed, index // 2, *b"half"]).random() < 0.5) == bool(index % 2)


def draw_lesions(rng: np.random.Generator, plan: Canvas, domain: str) -> list[Lesion]:
    """At least one lesion.

    Args:
        rng: Source of everything.
        plan: The healthy person on a coarse grid, always the same one so that the image's does not matter.
        domain: "torso" or "head-neck".
    """
    maker = _Maker(rng, plan)
    if domain == "head-neck":
        return _throat_cancer(maker)
    disease = rng.choice(["lung", "lymphoma", "spread"], p=[0.45, 0.25, 0.3])
    if disease == "lung":
        return _lung_cancer(maker)
    if disease == "lymphoma":
        return _lymphoma(maker)
    sites = ("liver", "marrow", "lung", "fat", "muscle", "spleen")
    return [
        maker.inside(str(site), rng.uniform(5, 13), 7.0)
        for site in rng.choice(sites, 1 + rng.poisson(2.5), p=[0.25, 0.3, 0.15, 0.12, 0.1, 0.08])
    ]


def paint_lesions(canvas: Canvas, lesions: list[Lesion]) -> Array:
    """Paint them; the part (X, Y, Z) of each voxel that is lesion comes back."""
    total = np.zeros(canvas.box.shape, np.float32)
    keep = np.isin(canvas.kind, [NAMES.index(name) for name in ("air", "skin", "couch")])
    free = np.where(keep, np.float32(0), np.float32(1))
    for lesion in lesions:
        shape = _shape(lesion)
        living = Tissue(lesion.hu, lesion.suv, hu_texture=8, suv_texture=0.18)
        canvas.paint(shape, living, weight=free)
        if lesion.necrosis:
            dead = Tissue(min(lesion.hu, 18), 0.25 * lesion.suv, hu_texture=6, suv_texture=0.2)
            canvas.paint(Grown(shape, (lesion.necrosis - 1) * lesion.radius), dead, weight=free)
        total = np.maximum(total, canvas.part(shape) * free)
    return total


class _Maker:
    def __init__(self, rng: np.random.Generator, plan: Canvas) -> None:
        self.rng, self._plan = rng, plan

    def at(self, site: str, centre: Point, radius: float, median: float, hu: float = 40.0) -> Lesion:
        """A lesion near a place; `median` of its SUV."""
        suv = float(np.clip(self.rng.lognormal(np.log(median), 0.45), 3.0, 30.0))
        # small lesions are not that hot
        suv = max(3.0, suv * min(1.0, 0.5 + radius / 20))
        dead = float(self.rng.uniform(0.35, 0.7)) if radius > 14 and self.rng.random() < 0.5 else 0.0
        x, y, z = (float(v) for v in np.asarray(centre) + self.rng.normal(0, 2, 3))
        return Lesion(site, (x, y, z), float(radius), suv, hu, dead, int(self.rng.integers(2**31)))

    def inside(self, site: str, radius: float, median: float) -> Lesion:
        """A lesion anywhere in an organ."""
        voxels = self._places(site)
        centre = self._plan.template(voxels[self.rng.integers(len(voxels))][None])[0]
        hu = {"lung": 30.0, "liver": 40.0, "marrow": float(self.rng.choice([60.0, 480.0]))}.get(site, 42.0)
        return self.at(site, (float(centre[0]), float(centre[1]), float(centre[2])), radius, median, hu)

    def _places(self, site: str) -> NDArray[np.intp]:
        there = self._plan.kind == NAMES.index(site)
        # not at the ends of the field of view, and, where there is room, not at the organ's surface
        there[..., :2] = there[..., -2:] = False
        deep = binary_erosion(there)
        return np.argwhere(deep if deep.any() else there)


def _lung_cancer(maker: _Maker) -> list[Lesion]:
    rng = maker.rng
    primary = maker.inside("lung", float(np.clip(rng.lognormal(np.log(14), 0.45), 5, 36)), 8.5)
    lesions = [primary]
    side = np.sign(primary.centre[0])
    near = [node for node in _CHEST_NODES if node[0] * side > -20]
    for i in rng.choice(len(near), min(len(near), rng.poisson(1.3)), replace=False):
        lesions.append(maker.at("node", near[i], rng.uniform(5, 11), 6.5))
    if rng.random() < 0.3:
        for site in rng.choice(["liver", "marrow", "lung"], rng.integers(1, 5)):
            lesions.append(maker.inside(str(site), rng.uniform(5, 12), 7.0))
    return lesions


def _lymphoma(maker: _Maker) -> list[Lesion]:
    rng = maker.rng
    stations = [*_CHEST_NODES, *_BELLY_NODES]
    start = rng.integers(len(stations))
    lesions = []
    for step in range(rng.integers(2, 7)):
        station = stations[(start + step) % len(stations)]
        for _ in range(rng.integers(1, 4)):
            near = np.asarray(station) + rng.normal(0, 7, 3)
            centre = (float(near[0]), float(near[1]), float(near[2]))
            lesions.append(maker.at("node", centre, rng.uniform(6, 16), 8.0))
    if rng.random() < 0.25:
        lesions.append(maker.inside("spleen", rng.uniform(8, 16), 7.0))
    return lesions


def _throat_cancer(maker: _Maker) -> list[Lesion]:
    rng = maker.rng
    sites = list(_THROAT)
    site = str(rng.choice(sites, p=[0.28, 0.22, 0.15, 0.16, 0.11, 0.08]))
    side = int(rng.choice([-1, 1]))
    x, y, z = _THROAT[site]
    lesions = []
    if rng.random() < 0.93:  # some primaries stay unknown
        lesions.append(maker.at(site, (side * x, y, z), float(np.clip(rng.lognormal(np.log(11), 0.35), 6, 22)), 9.0))
    places, often = zip(*_NECK_NODES, strict=True)
    for i in rng.choice(len(places), max(rng.poisson(1.4), not lesions), p=often):
        x, y, z = places[i]
        other = -1 if rng.random() < 0.2 else 1
        lesions.append(maker.at("node", (side * other * x, y, z), rng.uniform(5, 14), 7.5))
    return lesions


def _shape(lesion: Lesion) -> Field:
    """An ellipsoid with lumps: waves in random directions, as long as the lesion."""
    rng = np.random.default_rng(lesion.seed)
    axes = lesion.radius * np.exp(rng.normal(0, 0.15, 3))
    angles = rng.uniform(0, 180, 3)
    core = Ellipsoid(lesion.centre, (axes[0], axes[1], axes[2]), (angles[0], angles[1], angles[2]))
    waves = rng.normal(0, 2.2 / lesion.radius, (7, 3)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 7).astype(np.float32)
    centre = np.asarray(lesion.centre, np.float32)

    def distance(points: Array) -> Array:
        local = points - centre.reshape(3, *[1] * (points.ndim - 1))
        lumps = np.zeros(points.shape[1:], np.float32)
        for wave, phase in zip(waves, phases, strict=True):
            lumps += np.cos(np.tensordot(wave, local, 1) + phase)
        return np.asarray(core.distance(points) - np.float32(0.085 * lesion.radius) * lumps, np.float32)

    reach = 2.2 * lesion.radius
    x, y, z = lesion.centre
    return Field(distance, ((x - reach, y - reach, z - reach), (x + reach, y + reach, z + reach)))
