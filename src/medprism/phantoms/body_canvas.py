"""The person behind a body phantom, and the grid on which the organs of that person are painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from medprism.phantoms.body_tissue import NAMES, TISSUES, Tissue
from medprism.phantoms.box import Array, Box, sample, smooth_noise
from medprism.phantoms.deformation import flow, move
from medprism.phantoms.shapes import Ellipsoid, Point, Shape, Tube, filled

# Lattices of the warp and of the texture, mm: they do not depend on the image's grid, so that the person does not.
_COARSE, _FINE = 16.0, 8.0
# The body leaves its template by no more than this after scaling, mm: a warp of two scales, three spreads of each.
_REACH = 22.0


@dataclass(frozen=True)
class Person:
    """What makes a person: nothing here depends on a grid or a scanner.

    Attributes:
        size: Factors along x, y, z from the template.
        fat: Thickness of the fat under the skin of the belly, mm.
        female: Whether there are breasts and a uterus.
        age: Years; tonsils shrink with it.
        breath: Height of the diaphragm above the template's, mm.
        tissues: Mean HU and SUV of this person's tissues.
    """

    size: Point
    fat: float
    female: bool
    age: float
    breath: float
    tissues: dict[str, Tissue]


def draw_person(rng: np.random.Generator) -> Person:
    """A person of the cohort.

    Sizes follow the spread of adult height (about 5 % of the mean); the fat is chosen such that the body mass index
    spans about 18 to 38.
    """
    female = bool(rng.random() < 0.45)
    height = rng.normal(0.965 if female else 1.02, 0.04)
    breadth = height * np.exp(rng.normal(-0.01, 0.045))
    size = (float(breadth), float(breadth * np.exp(rng.normal(0, 0.04))), float(height))
    fat = float(np.clip(rng.lognormal(np.log(17), 0.45), 5, 45))
    age = float(np.clip(rng.normal(62, 12), 25, 88))
    breath = float(np.clip(rng.normal(0, 10), -20, 20))
    # a long uptake time or a low weight raises all uptake
    common = rng.normal(0, 0.08)
    tissues = {}
    for name, mean in TISSUES.items():
        hu, suv = rng.standard_normal(2)
        tissues[name] = Tissue(
            mean.hu + mean.hu_person * float(np.clip(hu, -2, 2)),
            mean.suv * float(np.exp(common + mean.suv_person * np.clip(suv, -2.5, 2.5))),
            hu_texture=mean.hu_texture,
            suv_texture=mean.suv_texture,
        )
    return Person(size, fat, female, age, breath, tissues)


class Canvas:
    """CT numbers, uptake and kind of tissue on a grid; what is painted later covers what was there.

    Attributes:
        box: The grid.
        hu: (X, Y, Z).
        suv: (X, Y, Z).
        kind: (X, Y, Z) uint8, the index in NAMES of the tissue that fills most of the voxel.
        fields: (3, X, Y, Z) smooth random fields of this person, mean 0 and variance 1.
    """

    def __init__(self, box: Box, person: Person, rng: np.random.Generator) -> None:
        """Air everywhere.

        Args:
            box: The grid.
            person: Whose tissues are painted.
            rng: Source of the warp and of the texture.
        """
        self.box = box
        self._person = person
        self._scale = np.asarray(person.size)
        world = box.centres()
        self._world = np.ascontiguousarray(world.T).reshape(3, *box.shape)
        self._points = _to_template(world, person, rng).T.reshape(3, *box.shape)
        lattice = _lattice(_FINE)
        noise = smooth_noise(rng, lattice, 10.0, 3)
        self.fields = sample(noise, lattice, world).reshape(3, *box.shape)
        self.hu = np.full(box.shape, TISSUES["air"].hu, np.float32)
        self.suv = np.zeros(box.shape, np.float32)
        self.kind = np.zeros(box.shape, np.uint8)

    def paint(
        self,
        shape: Shape,
        tissue: str | Tissue,
        *,
        weight: Array | None = None,
        world: bool = False,
        only: Sequence[str] | None = None,
    ) -> None:
        """Fill a shape.

        Args:
            shape: In mm of the template.
            tissue: A name, or a tissue of its own (which leaves `kind` as it is).
            weight: (X, Y, Z) in 0..1, part of each voxel in the shape that is filled; all by default.
            world: The shape is in mm of the world instead: not of the body.
            only: Kinds of tissue that it may cover.
        """
        block = self._block(shape, world)
        if block is None:
            return
        points = (self._world if world else self._points)[(slice(None), *block)]
        part = filled(shape, points, self.box.spacing)
        if weight is not None:
            part = part * weight[block]
        if only is not None:
            part = part * np.isin(self.kind[block], [NAMES.index(name) for name in only])
        constants = self._person.tissues[tissue] if isinstance(tissue, str) else tissue
        first, second, _ = self.fields[(slice(None), *block)]
        hu = np.float32(constants.hu) + np.float32(constants.hu_texture) * first
        suv = np.float32(constants.suv) * np.exp(np.float32(constants.suv_texture) * second)
        self.hu[block] += part * (hu - self.hu[block])
        self.suv[block] += part * (suv - self.suv[block])
        if isinstance(tissue, str):
            self.kind[block][part > 0.5] = NAMES.index(tissue)

    def part(self, shape: Shape) -> Array:
        """(X, Y, Z): what of each voxel a shape in mm of the template fills."""
        out = np.zeros(self.box.shape, np.float32)
        block = self._block(shape, world=False)
        if block is not None:
            out[block] = filled(shape, self._points[(slice(None), *block)], self.box.spacing)
        return out

    def template(self, voxels: NDArray[np.intp]) -> Array:
        """Points (N, 3) of the template at voxels (N, 3)."""
        return np.ascontiguousarray(self._points[:, voxels[:, 0], voxels[:, 1], voxels[:, 2]].T)

    def _block(self, shape: Shape, world: bool) -> tuple[slice, slice, slice] | None:
        """The voxels that a shape may touch."""
        low, high = (np.asarray(corner) for corner in shape.bounds)
        if not world:
            low, high = low * self._scale - _REACH, high * self._scale + _REACH
        first = np.floor((low - self.box.origin) / self.box.spacing - 1).clip(0, self.box.shape).astype(int)
        last = np.ceil((high - self.box.origin) / self.box.spacing + 2).clip(0, self.box.shape).astype(int)
        if (first >= last).any():
            return None
        x, y, z = (slice(a, b) for a, b in zip(first, last, strict=True))
        return x, y, z


class Vary:
    """Shapes of one person: the template's, a little moved, turned and sized."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Args: rng: Source of the differences."""
        self.rng = rng

    def ellipsoid(
        self,
        centre: Point,
        radii: Point,
        angles: Point = (0.0, 0.0, 0.0),
        *,
        shift: float = 3.0,
        grow: float = 0.07,
        turn: float = 5.0,
        power: float = 2.0,
    ) -> Ellipsoid:
        """An ellipsoid with normal spreads of its centre in mm, of its size in parts, of its angles in degrees."""
        return Ellipsoid(
            _point(centre + shift * self._normal(3)),
            _point(np.asarray(radii) * np.exp(grow * self._normal(3))),
            _point(angles + turn * self._normal(3)),
            power,
        )

    def tube(self, corners: Sequence[Point], radii: Sequence[float], *, shift: float = 2.0, grow: float = 0.08) -> Tube:
        """A tube with normal spreads of each of its corners in mm and of its width in parts."""
        moved = np.asarray(corners) + shift * self._normal((len(corners), 3))
        width = float(np.exp(grow * self._normal(1)[0]))
        return Tube([_point(corner) for corner in moved], [width * radius for radius in radii])

    def factor(self, spread: float) -> float:
        """A factor near 1."""
        return float(np.exp(spread * self._normal(1)[0]))

    def _normal(self, shape: int | tuple[int, int]) -> NDArray[np.float64]:
        return np.clip(self.rng.standard_normal(shape), -2, 2)


def mirrored(corners: Sequence[Point]) -> list[Point]:
    """The same on the other side of the body."""
    return [(-x, y, z) for x, y, z in corners]


def _to_template(world: Array, person: Person, rng: np.random.Generator) -> Array:
    """Template points (N, 3) of world points (N, 3): a diffeomorphism of two scales, then the person's size."""
    lattice = _lattice(_COARSE)
    velocity = 3.5 * smooth_noise(rng, lattice, 45.0, 3) + 1.6 * smooth_noise(rng, lattice, 16.0, 3)
    return np.asarray(move(world, flow(velocity, lattice), lattice) / np.asarray(person.size, np.float32), np.float32)


def _lattice(spacing: float) -> Box:
    """Room for both fields of view."""
    low, size = (-290.0, -230.0, -350.0), (580.0, 460.0, 930.0)
    x, y, z = (ceil(length / spacing) + 1 for length in size)
    return Box(low, spacing, (x, y, z))


def _point(values: NDArray[np.floating]) -> Point:
    x, y, z = (float(v) for v in values)
    return x, y, z
