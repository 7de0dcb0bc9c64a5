"""Lungs, heart, vessels and airways; the template of `body_torso`."""

from __future__ import annotations

import numpy as np

from medprism.phantoms.body_canvas import Canvas, Person, Vary
from medprism.phantoms.body_torso import cavity
from medprism.phantoms.box import Array
from medprism.phantoms.shapes import Both, Field, Grown, Point, Tube, beyond


def paint_chest(canvas: Canvas, person: Person, vary: Vary) -> None:
    """Lungs with their vessels, mediastinum, heart, airways."""
    breath = person.breath
    inside = Grown(cavity(), -2.0)
    lungs = [Both([inside, beyond(2, -110.0), _over_diaphragm(breath), _beside(side)]) for side in (-1, 1)]
    middle = Field(
        lambda points: np.maximum(np.abs(points[0]) - 34, np.maximum(20 - points[2], points[2] - 240)),
        ((-40, -120, 15), (40, 100, 245)),
    )
    canvas.paint(Both([inside, middle]), "mediastinum")
    heart = vary.ellipsoid((-20, 28, 34 + 0.6 * breath), (46, 42, 62), (22, 24, 30), shift=3, grow=0.06)
    for lung in lungs:
        canvas.paint(lung, "lung")
        canvas.paint(Both([lung, Grown(heart, 5.0)]), "mediastinum")
    for side in (-1, 1):
        _paint_tree(canvas, vary, side)
    canvas.paint(Grown(heart, 3.0), "mediastinum")
    canvas.paint(heart, "vessel")
    ventricle = vary.ellipsoid((-36, 28, 26 + 0.6 * breath), (31, 31, 46), (22, 24, 30), shift=2, grow=0.05, turn=2)
    canvas.paint(ventricle, "myocardium")
    canvas.paint(Grown(ventricle, -10.0), "vessel")
    for corners, radii in _VESSELS:
        canvas.paint(vary.tube(corners, radii), "vessel")
    canvas.paint(
        vary.tube(
            ((-2, -12, 290), (-3, -16, 255), (-4, -36, 200), (-6, -42, 100), (-8, -40, 40), (-14, -22, -8)), [7] * 6
        ),
        "oesophagus",
    )
    airways: list[tuple[list[Point], tuple[float, ...]]] = [
        ([(0, 22, 282), (0, 12, 250), (0, -14, 200), (0, -22, 138)], (8, 8.5, 9, 9)),
        ([(0, -22, 138), (24, -22, 112), (52, -22, 92)], (8, 6.5, 4)),
        ([(0, -22, 138), (-26, -24, 110), (-54, -24, 90)], (7.5, 6, 4)),
    ]
    for course, width in airways:
        tube = vary.tube(course, width, shift=1)
        canvas.paint(Grown(tube, 2.0), "trachea wall")
        canvas.paint(tube, "air")


def over(points: Array, breath: float) -> Array:
    """Height of a point above the diaphragm, mm: a dome on each side, that of the right one higher."""
    x, y, z = points
    right = 26 + breath - 0.0085 * np.square(x - 58) - 0.0125 * np.square(y - 8)
    left = 14 + breath - 0.0085 * np.square(x + 60) - 0.0125 * np.square(y - 8)
    slope = np.sqrt(1 + np.square(0.025 * (y - 8)))
    return np.asarray((z - np.maximum(right, left)) / slope, np.float32)


_VESSELS: tuple[tuple[list[Point], tuple[float, ...]], ...] = (
    (
        [(6, 18, 70), (14, 26, 108), (0, 8, 146), (-18, -24, 140), (-23, -44, 112), (-20, -46, 40), (-12, -38, -40)],
        (15, 15, 13, 12, 12, 11, 11),
    ),
    ([(-12, -38, -40), (-6, -22, -120), (-4, -18, -190)], (10, 9, 8)),
    ([(-4, -18, -190), (40, -12, -245), (70, 20, -320)], (7, 6, 5)),
    ([(-4, -18, -190), (-42, -12, -245), (-70, 20, -320)], (7, 6, 5)),
    ([(22, 8, 40), (22, -12, 0), (20, -24, -60), (16, -20, -190)], (12, 12, 11, 10)),
    ([(24, 12, 60), (26, 14, 110), (26, 6, 180)], (10, 9, 8)),
    ([(26, 6, 180), (46, 6, 236)], (7, 5)),
    ([(26, 6, 180), (-40, 4, 236)], (7, 5)),
    ([(-14, 32, 72), (-10, 12, 104), (54, -8, 96)], (14, 13, 8)),
    ([(-10, 12, 104), (-54, -12, 106)], (12, 8)),
)


def _over_diaphragm(breath: float) -> Field:
    return Field(lambda points: -over(points, breath))


def _beside(side: int) -> Field:
    """Lateral of the mediastinum, which is wide at the hila and around the spine."""

    def function(points: Array) -> Array:
        x, y, z = points
        hilum = 18 * np.exp(-np.square((z - 100) / 40) - np.square((y + 10) / 35))
        spine = 14 * np.exp(-np.square((y + 62) / 26))
        apex = 10 * np.clip((z - 150) / 60, 0, 1) * np.exp(-np.square((y + 5) / 45))
        return np.asarray(9 + hilum + spine + apex - side * x, np.float32)

    return Field(function)


def _paint_tree(canvas: Canvas, vary: Vary, side: int) -> None:
    """Vessels from the hilum into the lung, each forking once."""
    rng = vary.rng
    root = np.array([side * 48.0, -10.0, 96.0])
    for _ in range(11):
        end = np.array([side * rng.uniform(60, 112), rng.uniform(-70, 65), rng.uniform(-20, 215)])
        middle = root + (end - root) * 0.5 + rng.normal(0, 8, 3)
        fork = end + rng.normal(0, 22, 3)
        for far in (end, fork):
            corners = [(float(p[0]), float(p[1]), float(p[2])) for p in (root, middle, far)]
            canvas.paint(Tube(corners, (4.5, 2.6, 1.3)), "vessel", only=("lung", "vessel"))
