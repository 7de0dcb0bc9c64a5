"""Organs of belly and pelvis; the same template as `body_torso`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medprism.phantoms.body_canvas import Canvas, Person, Vary, mirrored
from medprism.phantoms.body_chest import over
from medprism.phantoms.body_tissue import Tissue
from medprism.phantoms.body_torso import cavity
from medprism.phantoms.shapes import Both, Field, Grown, Joined, Point, Shape, Tube


def paint_belly(canvas: Canvas, person: Person, vary: Vary) -> None:
    """Bowels, stomach, pancreas, liver, spleen, kidneys, bladder, uterus."""
    under = Field(lambda points: over(points, person.breath) + 5)
    inside = Grown(cavity(), -3.0)
    _paint_bowels(canvas, person, vary, inside)
    _paint_stomach(canvas, vary, Both([inside, under]))
    pancreas = vary.tube(((34, 16, -98), (4, 24, -84), (-30, 10, -70), (-66, -14, -54)), (14, 10, 10, 9))
    canvas.paint(Both([inside, pancreas]), "pancreas")
    liver = Joined(
        [
            vary.ellipsoid((70, -2, -36), (72, 84, 80), (0, 24, 0), grow=0.06, power=3.2),
            vary.ellipsoid((2, 44, -28), (72, 34, 40), (0, -12, 0), grow=0.1),
        ],
        18.0,
    )
    liver_there = Both([inside, under, liver])
    canvas.paint(liver_there, "liver")
    for end in ((96, 10, -30), (70, -40, -40), (50, 30, -10), (110, -10, -70)):
        canvas.paint(Both([liver_there, vary.tube(((24, 0, -58), end), (5, 2.5), shift=5)]), "vessel")
    canvas.paint(vary.ellipsoid((48, 48, -98), (13, 15, 26), (20, 0, 0)), "bile")
    spleen = vary.ellipsoid((-100, -38, -42), (24, 44, 52), (0, 14, -24), grow=0.12)
    canvas.paint(Both([inside, under, spleen]), "spleen")
    for side, height in ((1, -122), (-1, -108)):
        _paint_kidney(canvas, vary, side, height)
    if person.female:
        canvas.paint(vary.ellipsoid((4, -8, -262), (28, 22, 30), (30, 0, 0)), "uterus")
    bladder = vary.ellipsoid((0, 16, -296), (36, 31, 27), grow=0.15, turn=2)
    canvas.paint(Grown(bladder, 3.0), "muscle")
    canvas.paint(bladder, "urine")


def _paint_kidney(canvas: Canvas, vary: Vary, side: int, height: float) -> None:
    kidney = vary.ellipsoid((side * 60, -46, height), (25, 23, 53), (12, side * 12, side * 30), grow=0.08)
    canvas.paint(kidney, "kidney")
    x, y, z = kidney.centre
    canvas.paint(vary.ellipsoid((x - side * 14, y + 8, z), (12, 8, 24), shift=1), "fat")
    for shift in (-14, 6):
        calyx = vary.ellipsoid((x - side * 6, y + 3, z + shift), (6, 5, 8), shift=2, grow=0.15)
        canvas.paint(calyx, "urine")
    # the ureter is seen where a wave of urine passes
    start = float(vary.rng.uniform(-180, -140))
    path: list[Point] = [(34, -22, start), (38, -16, start - 30)]
    canvas.paint(vary.tube(path if side > 0 else mirrored(path), (2.5, 2.5)), "urine")


def _paint_stomach(canvas: Canvas, vary: Vary, inside: Shape) -> None:
    course = ((-52, -22, -22), (-60, 14, -52), (-30, 44, -92), (22, 38, -100))
    full = vary.factor(0.2)
    stomach = vary.tube(course, [full * r for r in (33, 30, 22, 13)])
    lumen = Grown(stomach, -6.0)
    canvas.paint(Both([inside, stomach]), "stomach wall")
    canvas.paint(Both([inside, lumen]), "stomach content")
    level = float(vary.rng.uniform(25, 50))
    canvas.paint(Both([inside, lumen, Field(lambda points: level - points[1])]), "air")


def _paint_bowels(canvas: Canvas, person: Person, vary: Vary, inside: Shape) -> None:
    rng = vary.rng
    constants = person.tissues["small bowel"]
    for _ in range(16):
        start = np.array([rng.uniform(-70, 70), rng.uniform(5, 55), rng.uniform(-235, -125)])
        steps = rng.normal(0, (26, 10, 16), (4, 3))
        corners = np.clip(start + np.cumsum(steps, 0), (-78, -12, -250), (78, 64, -112))
        loop = Tube([(float(x), float(y), float(z)) for x, y, z in corners], [float(rng.uniform(9, 13))] * 4)
        uptake = constants.suv * float(rng.lognormal(0, 0.3))
        own = Tissue(constants.hu, uptake, hu_texture=constants.hu_texture, suv_texture=constants.suv_texture)
        canvas.paint(Both([inside, loop]), "small bowel")
        canvas.paint(Both([inside, loop]), own)
    # metformin makes the bowel bright in some
    metformin = 2.8 if rng.random() < 0.15 else 1.0
    gas = np.clip(4 * (canvas.fields[2] - 0.35), 0, 1)
    colon: tuple[tuple[Sequence[Point], tuple[float, ...]], ...] = (
        (((84, 2, -215), (90, 6, -160), (88, 10, -112)), (24, 22, 19)),
        (((88, 10, -112), (40, 52, -122), (-20, 58, -128), (-84, 30, -92)), (19, 18, 17, 16)),
        (((-84, 30, -92), (-96, -6, -130), (-92, -4, -205)), (16, 15, 14)),
        (((-92, -4, -205), (-50, 14, -240), (-8, -12, -245), (0, -34, -300)), (14, 14, 15, 17)),
    )
    constants = person.tissues["colon"]
    for course, radii in colon:
        part = vary.tube(course, radii, shift=5)
        uptake = constants.suv * metformin * float(rng.lognormal(0, 0.25))
        own = Tissue(constants.hu, uptake, hu_texture=constants.hu_texture, suv_texture=constants.suv_texture)
        canvas.paint(Both([inside, part]), "colon")
        canvas.paint(Both([inside, part]), own)
        canvas.paint(Both([inside, Grown(part, -4.0)]), "air", weight=gas)
