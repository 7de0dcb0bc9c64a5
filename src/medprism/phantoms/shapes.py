"""Solids given by their distance: what organs are made of.

A shape answers with a distance in mm, negative inside; exact on its surface and about right near it, which is all that
partial volume needs. The part of a voxel that a shape fills follows from the distance of its centre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from medprism.phantoms.box import Array

Point = tuple[float, float, float]
Bounds = tuple[Point, Point]

EVERYWHERE: Bounds = ((-1e4, -1e4, -1e4), (1e4, 1e4, 1e4))


class Shape(Protocol):
    """A solid; points are (3, …) in mm."""

    @property
    def bounds(self) -> Bounds:
        """Two opposite corners of a box around it."""
        ...

    def distance(self, points: Array) -> Array:
        """(…) mm, negative inside."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """Σ |q/r|ⁿ ≤ 1 along its own axes: an ellipsoid, with rounder corners as the power n grows.

    Attributes:
        centre: mm.
        radii: Half axes, mm.
        angles: Rotation about the fixed axes x, then y, then z, degrees.
        power: n, at least 2.
    """

    centre: Point
    radii: Point
    angles: Point = (0.0, 0.0, 0.0)
    power: float = 2.0

    @property
    def bounds(self) -> Bounds:
        """Of the box around the turned box around it; exact enough."""
        reach = np.abs(self._rotation()) @ np.asarray(self.radii)
        return _bounds(np.asarray(self.centre) - reach, np.asarray(self.centre) + reach)

    def distance(self, points: Array) -> Array:
        """By the value and the gradient of the norm."""
        centre = np.asarray(self.centre, np.float32).reshape(3, *[1] * (points.ndim - 1))
        local = points - centre
        if any(self.angles):
            local = np.tensordot(self._rotation().T.astype(np.float32), local, 1)
        radii = np.asarray(self.radii, np.float32).reshape(centre.shape)
        scaled = np.abs(local) / radii
        return _norm_distance(scaled, radii, self.power)

    def _rotation(self) -> NDArray[np.float64]:
        return np.asarray(Rotation.from_euler("xyz", self.angles, degrees=True).as_matrix())


@dataclass(frozen=True)
class Tube:
    """Balls along a polyline, their radius changing linearly between its corners.

    Attributes:
        corners: At least two, mm.
        radii: One for each corner, mm.
    """

    corners: Sequence[Point]
    radii: Sequence[float]

    @property
    def bounds(self) -> Bounds:
        """Around the balls at the corners."""
        corners, radii = np.asarray(self.corners), np.asarray(self.radii)[:, None]
        return _bounds((corners - radii).min(0), (corners + radii).max(0))

    @property
    def thinnest(self) -> float:
        """Least radius, mm."""
        return float(min(self.radii))

    def distance(self, points: Array) -> Array:
        """To the nearest segment, less the radius there."""
        out: Array | None = None
        shape = (3, *[1] * (points.ndim - 1))
        corners = np.asarray(self.corners, np.float32)
        for a, b, first, last in zip(corners[:-1], corners[1:], self.radii[:-1], self.radii[1:], strict=True):
            along = (b - a).reshape(shape)
            local = points - a.reshape(shape)
            t = np.clip((local * along).sum(0) / np.maximum(np.square(along).sum(), np.float32(1e-6)), 0, 1)
            far = np.sqrt(np.square(local - t * along).sum(0)) - (first + np.float32(last - first) * t)
            out = far if out is None else np.minimum(out, far)
        assert out is not None  # two corners at least
        return np.asarray(out, np.float32)


@dataclass(frozen=True)
class Trunk:
    """A superellipse at each height, its half axes and its centre interpolated between given heights.

    Attributes:
        rows: (z, half width, half depth, y of the centre), mm, by rising z.
        power: Of the superellipse.
    """

    rows: Sequence[tuple[float, float, float, float]]
    power: float = 2.3
    _along: Callable[[NDArray[np.float64]], NDArray[np.float64]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = np.asarray(self.rows)
        object.__setattr__(self, "_along", PchipInterpolator(table[:, 0], table[:, 1:]))

    @property
    def bounds(self) -> Bounds:
        """From its first to its last row."""
        z, a, b, y = np.asarray(self.rows).T
        return _bounds([-a.max(), (y - b).min(), z[0]], [a.max(), (y + b).max(), z[-1]])

    def distance(self, points: Array) -> Array:
        """Within the slice; above and below its rows the distance to the last of them."""
        x, y, z = points
        low, high = self.rows[0][0], self.rows[-1][0]
        # the profile is smooth: a table of it in steps of 2 mm is exact enough and much faster
        steps = np.linspace(low, high, max(2, int((high - low) / 2)))
        table = np.asarray(self._along(steps), np.float32)
        a, b, centre = (np.interp(z, steps, column).astype(np.float32) for column in table.T)
        scaled = np.stack([np.abs(x) / a, np.abs(y - centre) / b])
        flat = _norm_distance(scaled, np.stack([a, b]), self.power)
        return np.asarray(np.maximum(flat, np.maximum(z - high, low - z)), np.float32)


@dataclass(frozen=True)
class Field:
    """Any function of the points as a distance.

    Attributes:
        function: (3, …) → (…).
        bounds: Where it may be negative.
    """

    function: Callable[[Array], Array]
    bounds: Bounds = EVERYWHERE

    def distance(self, points: Array) -> Array:
        """What the function says."""
        return np.asarray(self.function(points), np.float32)


@dataclass(frozen=True)
class Both:
    """What lies in all of them; `but` turns a shape inside out."""

    shapes: Sequence[Shape]

    @property
    def bounds(self) -> Bounds:
        """The common part of the boxes."""
        low, high = zip(*(shape.bounds for shape in self.shapes), strict=True)
        return _bounds(np.max(low, 0), np.min(high, 0))

    def distance(self, points: Array) -> Array:
        """The largest."""
        return np.asarray(np.maximum.reduce([shape.distance(points) for shape in self.shapes]), np.float32)


@dataclass(frozen=True)
class Joined:
    """What lies in any of them, the creases filled.

    Attributes:
        shapes: At least one.
        blend: Reach of the fillet, mm; 0 leaves the crease.
    """

    shapes: Sequence[Shape]
    blend: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """Around all the boxes; a fillet never leaves them by more than a quarter of its reach."""
        low, high = zip(*(shape.bounds for shape in self.shapes), strict=True)
        return _bounds(np.min(low, 0) - self.blend / 4, np.max(high, 0) + self.blend / 4)

    def distance(self, points: Array) -> Array:
        """The smallest, by the polynomial smooth minimum where two are close."""
        out = self.shapes[0].distance(points)
        for shape in self.shapes[1:]:
            other = shape.distance(points)
            lower = np.minimum(out, other)
            if self.blend:
                near = np.maximum(self.blend - np.abs(out - other), 0) / np.float32(self.blend)
                lower = lower - np.square(near) * np.float32(self.blend / 4)
            out = lower
        return np.asarray(out, np.float32)


@dataclass(frozen=True)
class Grown:
    """A shape with its surface moved outwards.

    Attributes:
        shape: The one.
        by: mm, or a function of the points that gives it; negative shrinks.
        most: Largest value of the function, mm; unused for a number.
    """

    shape: Shape
    by: float | Callable[[Array], Array]
    most: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """The box grown alike."""
        by = self.most if callable(self.by) else max(0.0, self.by)
        low, high = self.shape.bounds
        return _bounds(np.asarray(low) - by, np.asarray(high) + by)

    def distance(self, points: Array) -> Array:
        """That of the shape, less the growth."""
        by = self.by(points) if callable(self.by) else np.float32(self.by)
        return np.asarray(self.shape.distance(points) - by, np.float32)


def but(shape: Shape) -> Field:
    """All outside of a shape."""
    return Field(lambda points: -shape.distance(points))


def beyond(axis: int, at: float, sign: int = 1) -> Field:
    """The half space where `sign` times a coordinate exceeds `sign` times `at` mm."""
    return Field(lambda points: np.float32(sign) * (np.float32(at) - points[axis]))


def filled(shape: Shape, points: Array, spacing: float) -> Array:
    """Part of each voxel that a shape fills, as if its surface were flat there.

    A tube thinner than a voxel fills what its cross-section does.
    """
    part = np.clip(np.float32(0.5) - shape.distance(points) / np.float32(spacing), 0, 1)
    if isinstance(shape, Tube):
        part = part * np.float32(min(1.0, 2 * shape.thinnest / spacing) ** 2)
    return np.asarray(part, np.float32)


def _norm_distance(scaled: Array, radii: Array, power: float) -> Array:
    """(f − 1) / |∇f| of the norm f = (Σ qⁿ)^(1/n)."""
    total = np.maximum((scaled * scaled if power == 2 else scaled**power).sum(0), 1e-9)
    f = np.sqrt(total) if power == 2 else total ** (1 / power)
    slope = (scaled if power == 2 else scaled ** (power - 1)) / radii
    gradient = np.sqrt(np.square(slope).sum(0)) * f ** (1 - power)
    # at the very centre the gradient's direction is lost; the least radius bounds the depth
    return np.asarray((f - 1) / np.maximum(gradient, 1e-3), np.float32)


def _bounds(low: Sequence[float] | NDArray[np.floating], high: Sequence[float] | NDArray[np.floating]) -> Bounds:
    (a, b, c), (d, e, f) = (float(v) for v in low), (float(v) for v in high)
    return (a, b, c), (d, e, f)
