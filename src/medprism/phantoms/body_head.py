"""Head and neck; the template of `body_torso`, z = 320 at the hyoid."""

from __future__ import annotations

import numpy as np

from medprism.phantoms.body_canvas import Canvas, Person, Vary, mirrored
from medprism.phantoms.box import Array
from medprism.phantoms.shapes import (
    Both,
    Ellipsoid,
    Field,
    Grown,
    Joined,
    Point,
    Shape,
    Tube,
    but,
)

_CRANIUM = Ellipsoid((0, -10, 460), (72, 90, 77), power=2.2)
_FACE = Ellipsoid((0, 22, 380), (62, 73, 88), power=2.8)


def head_skin(trunk: Shape) -> Shape:
    """The surface of the head on a trunk."""
    nose = Ellipsoid((0, 98, 398), (13, 16, 22), (-20, 0, 0))
    ears = [Ellipsoid((side * 76, -14, 408), (7, 14, 28), (0, 0, side * 20)) for side in (-1, 1)]
    return Joined([trunk, Joined([Grown(_CRANIUM, 6.0), _FACE, nose, *ears], 14.0)], 22.0)


def head_muscle(trunk: Shape) -> Shape:
    """All within the fat under the skin of the head, on that of a trunk."""
    return Joined([trunk, Joined([Grown(_CRANIUM, 2.0), Grown(_FACE, -7.0)], 10.0)], 18.0)


def paint_head(canvas: Canvas, person: Person, vary: Vary) -> None:
    """Skull, brain, face, throat, glands and neck."""
    _paint_neck(canvas, vary)
    _paint_face_bones(canvas, vary)
    _paint_skull(canvas, vary)
    _paint_brain(canvas, vary)
    _paint_orbits(canvas, vary)
    _paint_throat(canvas, person, vary)
    _paint_glands(canvas, vary)


def _base(points: Array) -> Array:
    """Height above the floor of the brain's box, mm: three steps from the forehead to the neck."""
    _, y, z = points
    return np.asarray(z - np.interp(y, (-90, -30, 0, 28, 80), (386, 386, 410, 432, 438)), np.float32)


def _paint_skull(canvas: Canvas, vary: Vary) -> None:
    above = Field(lambda points: -_base(points) - 5)
    canvas.paint(Both([_CRANIUM, above]), "cortical bone")
    canvas.paint(Both([Grown(_CRANIUM, -1.8), above]), "marrow")
    canvas.paint(Both([Grown(_CRANIUM, -4.5), Field(lambda points: -_base(points) - 2)]), "cortical bone")
    cells = np.clip(2 * canvas.fields[2], 0, 0.8)
    for side in (-1, 1):
        mastoid = vary.ellipsoid((side * 53, -22, 392), (11, 15, 18))
        canvas.paint(mastoid, "cortical bone")
        canvas.paint(Grown(mastoid, -2.0), "air", weight=cells)
        canvas.paint(Tube([(side * 84, -8, 404), (side * 48, -8, 406)], (3, 3)), "air")


def _paint_brain(canvas: Canvas, vary: Vary) -> None:
    box = Both([Grown(_CRANIUM, -6.5), Field(lambda points: -_base(points))])
    canvas.paint(box, "CSF")
    brain = Both([Grown(box, -1.8), Field(lambda points: 1.6 - np.abs(points[0]))])
    canvas.paint(brain, "grey matter")
    # blades of white matter between the folds of the cortex
    blades = (np.abs(canvas.fields[2]) < 0.4).astype(np.float32)
    canvas.paint(Grown(brain, -3.5), "white matter", weight=blades)
    canvas.paint(Grown(brain, -13.0), "white matter")
    for side in (-1, 1):
        canvas.paint(vary.ellipsoid((side * 12, -16, 458), (8, 15, 9), shift=1), "grey matter")
        canvas.paint(vary.ellipsoid((side * 25, 4, 460), (7, 18, 12), shift=1), "grey matter")
        canvas.paint(vary.ellipsoid((side * 12, 16, 466), (5, 12, 10), shift=1), "grey matter")
        canvas.paint(vary.ellipsoid((side * 9, -8, 473), (5, 32, 7), (12, 0, 0), shift=1, grow=0.2), "CSF")
    hind = Both([box, vary.ellipsoid((0, -58, 412), (48, 32, 23), shift=1, grow=0.04)])
    canvas.paint(hind, "cerebellum")
    canvas.paint(vary.tube(((0, -18, 442), (0, -24, 415), (0, -32, 384)), (13, 13, 7), shift=1), "white matter")


def _paint_orbits(canvas: Canvas, vary: Vary) -> None:
    for side in (-1, 1):
        cone = Joined([Ellipsoid((side * 31, 62, 426), (18, 22, 17)), Ellipsoid((side * 24, 38, 426), (9, 16, 9))], 10)
        canvas.paint(Grown(cone, 2.0), "cortical bone", only=("muscle", "marrow"))
        canvas.paint(cone, "fat")
        for target in ((20, 66, 426), (44, 66, 426), (32, 66, 437), (32, 66, 415)):
            canvas.paint(Tube([(side * 20, 30, 424), (side * target[0], *target[1:])], (1.6, 2.2)), "eye muscle")
        canvas.paint(vary.ellipsoid((side * 32, 72, 426), (12, 12, 12), shift=1, grow=0.02), "eye")


def _paint_face_bones(canvas: Canvas, vary: Vary) -> None:
    jaw = Field(lambda points: _arch(points, (40, 45), 40, 5.5, (320, 344), 34), ((-52, 30, 314), (52, 104, 350)))
    maxilla = Field(lambda points: _arch(points, (32, 39), 44, 6, (360, 384), 40), ((-46, 36, 354), (46, 104, 390)))
    bones: list[Shape] = [jaw, maxilla, Ellipsoid((0, 62, 371), (28, 32, 3.5))]
    for side in (-1, 1):
        ramus: list[Point] = [(40, 40, 330), (48, 22, 340), (51, 4, 398)]
        cheek: list[Point] = [(34, 78, 400), (56, 54, 406), (64, 14, 404)]
        bones.append(vary.tube(ramus if side > 0 else mirrored(ramus), (8, 8, 6), shift=1))
        bones.append(vary.tube(cheek if side > 0 else mirrored(cheek), (7, 6, 4), shift=1))
    # the middle of the skull's base
    bones.append(Both([Ellipsoid((0, 2, 408), (44, 40, 20), (-25, 0, 0)), Field(_base)]))
    for bone in bones:
        canvas.paint(bone, "cortical bone")
        canvas.paint(Grown(bone, -2.4), "marrow")
    teeth = np.where(canvas.fields[2] > -0.9, 1, 0.2).astype(np.float32)  # some are missing
    for row in (_teeth(344, 352), _teeth(353, 361)):
        canvas.paint(row, "tooth", weight=teeth)


def _teeth(low: float, high: float) -> Field:
    return Field(
        lambda points: _arch(points, (29, 36), 46, 4.0, (low, high), 44), ((-40, 40, low - 3), (40, 98, high + 3))
    )


def _arch(
    points: Array, radii: tuple[float, float], centre: float, half: float, heights: tuple[float, float], front: float
) -> Array:
    """A horizontal band along half an ellipse that opens to the back."""
    x, y, z = points
    q = np.maximum(np.hypot(x / radii[0], (y - centre) / radii[1]), 1e-3)
    slope = np.hypot(x / radii[0] ** 2, (y - centre) / radii[1] ** 2) / q
    ring = np.abs((q - 1) / np.maximum(slope, 1e-3)) - half
    middle, tall = (heights[0] + heights[1]) / 2, (heights[1] - heights[0]) / 2
    return np.asarray(np.maximum(np.maximum(ring, front - y), np.abs(z - middle) - tall), np.float32)


def _paint_throat(canvas: Canvas, person: Person, vary: Vary) -> None:
    """Nose, sinuses, mouth, throat and larynx."""
    for side in (-1, 1):
        for sinus in (
            vary.ellipsoid((side * 27, 62, 396), (13, 17, 17), shift=1, grow=0.12),
            vary.ellipsoid((side * 12, 80, 452), (12, 6, 12), shift=1, grow=0.2),
        ):
            canvas.paint(Grown(sinus, 1.6), "cortical bone")
            canvas.paint(sinus, "air")
    for hollow in (
        vary.ellipsoid((0, 60, 424), (10, 22, 12), shift=1, grow=0.1),
        vary.ellipsoid((0, 20, 420), (13, 12, 10), shift=1, grow=0.15),
    ):
        canvas.paint(Grown(hollow, 1.5), "cortical bone")
        canvas.paint(hollow, "air")
    canvas.paint(Ellipsoid((0, 60, 394), (14, 32, 20), power=3), "mucosa")
    for side in (-1, 1):
        canvas.paint(Ellipsoid((side * 6, 60, 394), (4.5, 33, 17), power=3), "air")
        canvas.paint(Ellipsoid((side * 8, 58, 388), (2.5, 24, 7)), "mucosa")
    canvas.paint(vary.ellipsoid((0, 50, 342), (25, 36, 20), (8, 0, 0), shift=1, power=2.4), "tongue")
    # nasopharynx to glottis
    throat = vary.tube(
        ((0, 34, 396), (0, 16, 388), (0, 6, 362), (0, 8, 336), (0, 10, 318), (0, 22, 302), (0, 24, 293)),
        (10, 10, 8, 9, 10, 7, 4),
        shift=0.8,
    )
    below = Tube([(0, 24, 288), (0, 22, 282)], (4, 8))
    for tube in (throat, below):
        canvas.paint(Grown(tube, 3.2), "mucosa")
    larynx = Field(
        lambda points: np.maximum(
            np.abs(np.hypot(points[0], points[1] - 20) - 17) - 2.2,
            np.maximum(16 - points[1], np.abs(points[2] - 294) - 14),
        ),
        ((-22, 12, 276), (22, 42, 312)),
    )
    cricoid = Field(
        lambda points: np.maximum(np.abs(np.hypot(points[0], points[1] - 20) - 12) - 2.2, np.abs(points[2] - 274) - 5),
        ((-16, 4, 266), (16, 36, 282)),
    )
    hyoid = Tube([(-20, 12, 320), (-12, 34, 316), (12, 34, 316), (20, 12, 320)], [3.0] * 4)
    for cartilage in (larynx, cricoid):
        canvas.paint(cartilage, "cartilage")
    canvas.paint(hyoid, "cortical bone")
    shrunk = float(np.clip(1.5 - person.age / 110, 0.6, 1.3))
    canvas.paint(vary.ellipsoid((0, 24, 369), (15, 14, 4.5), (35, 0, 0), shift=1), "soft palate")
    canvas.paint(vary.ellipsoid((0, 19, 330), (15, 6, 8 * shrunk), shift=1), "lingual tonsil")
    for side in (-1, 1):
        tonsil = vary.ellipsoid((side * 16, 12, 350), (6 * shrunk, 8 * shrunk, 12 * shrunk), shift=1, grow=0.15)
        canvas.paint(tonsil, "palatine tonsil")
        canvas.paint(vary.ellipsoid((side * 6, 27, 290), (3.5, 11, 3.5), shift=0.5), "vocal cords")
    for tube in (throat, below):
        canvas.paint(tube, "air")


def _paint_glands(canvas: Canvas, vary: Vary) -> None:
    for side in (-1, 1):
        canvas.paint(vary.ellipsoid((side * 55, 2, 366), (10, 18, 25), shift=2, grow=0.12), "parotid")
        canvas.paint(vary.ellipsoid((side * 32, 28, 322), (10, 15, 14), shift=2, grow=0.1), "submandibular gland")
        canvas.paint(vary.ellipsoid((side * 13, 62, 326), (5, 15, 6), (0, 0, side * -15), shift=1), "sublingual gland")
        canvas.paint(vary.ellipsoid((side * 17, 20, 262), (8, 9, 23), shift=1.5, grow=0.12), "thyroid")
    canvas.paint(vary.ellipsoid((0, 32, 256), (13, 4, 7), shift=1), "thyroid")


def _paint_neck(canvas: Canvas, vary: Vary) -> None:
    """Fat along the vessels, the vessels, and the muscles that frame them."""
    for side in (-1, 1):
        sheath: list[Point] = [(40, -4, 378), (36, 2, 320), (30, 4, 250)]
        behind: list[Point] = [(48, -34, 330), (56, -30, 270)]
        strap: list[Point] = [(56, -20, 388), (48, 4, 320), (22, 30, 232)]
        carotid: list[Point] = [(28, -8, 398), (29, 0, 330), (20, 2, 228)]
        jugular: list[Point] = [(34, -10, 396), (36, -2, 330), (28, 8, 228)]
        parts: tuple[tuple[list[Point], tuple[float, ...], str], ...] = (
            (sheath, (11, 16, 18), "fat"),
            (behind, (11, 15), "fat"),
            (strap, (10, 11, 8), "muscle"),
            (carotid, (3, 4, 4), "vessel"),
            (jugular, (4, 5.5, 6), "vessel"),
        )
        for course, radii, tissue in parts:
            canvas.paint(vary.tube(course if side > 0 else mirrored(course), radii), tissue)
    canvas.paint(Both([Ellipsoid((0, 12, 372), (34, 26, 18)), but(Ellipsoid((0, 14, 372), (20, 24, 30)))]), "fat")
