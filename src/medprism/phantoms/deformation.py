"""Diffeomorphisms from stationary velocity fields.

A map is kept as its displacement u on a lattice: x ↦ x + u(x), all in mm. The flow of a smooth stationary velocity
field is smooth, has a smooth inverse (the flow of the opposite field), and cannot fold: scaling and squaring after
Arsigny et al. 2006, "A Log-Euclidean Framework for Statistics on Diffeomorphisms", MICCAI.
"""

from __future__ import annotations

import numpy as np

from medprism.phantoms.box import Array, Box, sample

# A first step of at most this part of a voxel is invertible by itself for any field that the lattice can carry.
_LARGEST_FIRST_STEP = 0.25


def flow(velocity: Array, box: Box) -> Array:
    """Displacement of the time-1 flow of a velocity field.

    Args:
        velocity: (3, X, Y, Z) mm per unit time.
        box: Its lattice.

    Returns:
        (3, X, Y, Z) displacement, mm.
    """
    largest = float(np.abs(velocity).max()) / box.spacing
    squarings = max(0, int(np.ceil(np.log2(max(largest, 1e-9) / _LARGEST_FIRST_STEP))))
    displacement = velocity * np.float32(0.5**squarings)
    points = box.centres()
    for _ in range(squarings):
        displacement = displacement + _at(displacement, box, move(points, displacement, box)).reshape(velocity.shape)
    return np.asarray(displacement, np.float32)


def move(points: Array, displacement: Array, box: Box) -> Array:
    """Images (N, 3) of points (N, 3) under the map x ↦ x + u(x)."""
    return points + _at(displacement, box, points).T


def compose(outer: Array, inner: Array, box: Box) -> Array:
    """Displacement of x ↦ outer(inner(x)) on the lattice."""
    points = box.centres()
    return inner + _at(outer, box, move(points, inner, box)).reshape(inner.shape)


def jacobian(displacement: Array, box: Box) -> Array:
    """Determinant (X, Y, Z) of the derivative of x ↦ x + u(x), by central differences."""
    gradient = np.stack([np.stack(np.gradient(u, box.spacing)) for u in displacement])  # (component, axis, X, Y, Z)
    matrix = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3, dtype=np.float32)
    return np.asarray(np.linalg.det(matrix), np.float32)


def _at(displacement: Array, box: Box, points: Array) -> Array:
    return sample(displacement, box, points)
