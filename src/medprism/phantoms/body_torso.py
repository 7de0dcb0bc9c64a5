"""The trunk: surface, muscles, skeleton.

Millimetres of a template of an adult man, x to the person's right, y to the front, z up, z = 0 near the dome of the
diaphragm, 220 at the top of the sternum, 320 at the hyoid, 540 at the vertex. All parts of the body share it. The
proportions are drawn by hand after what CT shows; none is measured.
"""

from __future__ import annotations

import numpy as np

from medprism.phantoms.body_canvas import Canvas, Person, Vary, mirrored
from medprism.phantoms.box import Array
from medprism.phantoms.shapes import (
    Both,
    Bounds,
    Ellipsoid,
    Field,
    Grown,
    Joined,
    Point,
    Shape,
    Trunk,
    Tube,
    but,
)

# Surface of the muscles: z, half width, half depth, y of the centre.
_MUSCLE = (
    (-420, 168, 100, -12),
    (-300, 172, 104, -10),
    (-240, 164, 102, -8),
    (-180, 150, 96, -6),
    (-120, 142, 94, -6),
    (-60, 146, 100, -8),
    (0, 154, 108, -8),
    (80, 162, 112, -8),
    (150, 168, 104, -12),
    (205, 172, 86, -18),
    (235, 150, 74, -20),
    (262, 96, 66, -18),
    (290, 66, 60, -16),
    (400, 60, 58, -16),
)
# Inner surface of ribs, belly wall and pelvis.
_CAVITY = (
    (-420, 66, 44, -8),
    (-310, 78, 50, -5),
    (-260, 98, 62, -2),
    (-230, 107, 68, 2),
    (-180, 114, 72, 5),
    (-120, 118, 76, 4),
    (-60, 126, 83, 1),
    (0, 132, 89, -1),
    (80, 130, 88, -3),
    (150, 114, 76, -8),
    (200, 90, 60, -14),
    (235, 62, 44, -22),
    (258, 36, 26, -28),
    (264, 30, 22, -28),
)
_RIB_PITCH, _RIB_SLOPE = 25.0, 0.45
# Lower ends of the vertebrae: of L5, of L1, of T1, and of the neck's.
_SPINE_LEVELS = ((-380.0, -220.0, -60.0, 228.0, 252.0, 385.0), (0.0, 5.0, 10.0, 22.0, 23.0, 30.0))
_SPINE_COURSE = (
    (-330, -50),
    (-270, -62),
    (-225, -48),
    (-170, -34),
    (-110, -38),
    (-60, -50),
    (0, -62),
    (80, -68),
    (150, -64),
    (200, -54),
    (250, -44),
    (300, -36),
    (385, -32),
)


def trunk_muscle(raised: bool) -> Shape:
    """All within the fat under the skin of trunk, neck and upper arms, the arms raised or down."""
    return Joined([Trunk(_MUSCLE, 2.4), *(arm(side, 44.0, raised) for side in (-1, 1))], 30.0)


def trunk_skin(person: Person, raised: bool) -> Shape:
    """The surface of trunk, neck and upper arms."""
    covered = Grown(trunk_muscle(raised), lambda points: person.fat * fat_profile(points), most=1.7 * person.fat)
    if not person.female:
        return covered
    return Joined([covered, *(_breast(person, side) for side in (-1, 1))], 20.0)


def cavity() -> Trunk:
    """What lies within ribs, belly wall and pelvis."""
    return Trunk(_CAVITY, 2.3)


def paint_wall(canvas: Canvas, person: Person, vary: Vary, skin: Shape, muscle: Shape) -> None:
    """Skin, fat, breasts and muscles of a body with the given surfaces; the trunk is left full of fat."""
    canvas.paint(skin, "skin")
    canvas.paint(Grown(skin, -2.5), "fat")
    if person.female:
        glands = np.clip(canvas.fields[2] + 0.6, 0, 1)
        for side in (-1, 1):
            canvas.paint(Grown(_breast(person, side), -12.0), "breast", weight=glands, only=("fat", "skin"))
    canvas.paint(muscle, "muscle")
    # fat between the muscles: sheets where a random field changes its sign, more of them in the stout
    sheets = np.exp(-np.square(canvas.fields[2] / np.float32(0.10 + 0.004 * person.fat)))
    canvas.paint(Grown(muscle, -3.0), "fat", weight=np.asarray(0.8 * sheets, np.float32))
    canvas.paint(cavity(), "fat")
    courses: tuple[tuple[list[Point], tuple[float, ...]], ...] = (
        ([(26, -40, -80), (34, -38, -140), (58, -10, -235), (80, 10, -320)], (10, 19, 20, 17)),
        ([(34, -85, -330), (30, -80, -100), (26, -92, 60), (24, -88, 230)], (20, 24, 16, 14)),
    )
    for corners, radii in courses:
        for course in (corners, mirrored(corners)):
            canvas.paint(vary.tube(course, radii), "muscle")


def paint_bones(canvas: Canvas, vary: Vary, raised: bool) -> None:
    """Spine, ribs, sternum, shoulders and pelvis: a shell of compact bone around marrow."""
    inner = cavity()
    ribs = Field(lambda points: _ribs(points, inner.distance(points)), ((-160, -130, -130), (160, 110, 262)))
    front = Field(lambda points: 58 - points[1])
    bones: list[Shape] = [
        Both([ribs, but(front)]),
        Field(lambda points: _sternum(points, inner.distance(points)), ((-25, 0, 0), (25, 125, 225))),
        Field(lambda points: _ilium(points, inner.distance(points)), ((-140, -110, -330), (140, 90, -150))),
        Both([vary.ellipsoid((0, -62, -262), (50, 18, 52), (-12, 0, 0), shift=2, turn=2), but(inner)]),
    ]
    canvas.paint(Both([ribs, front]), "cartilage")
    for side in (-1, 1):
        scapula = vary.ellipsoid((side * 98, -88, 165), (40, 5, 55), (8, side * 10, side * 32), shift=2, turn=3)
        bones.append(scapula)
        collar: list[Point] = [(14, 50, 205), (75, 42, 226), (140, -4, 232)]
        bones.append(vary.tube(collar if side > 0 else mirrored(collar), (7, 5, 7)))
        head = Tube([(side * 146, -12, 222), (side * 148, -12, 226)], (23, 23))
        bones.append(Joined([arm(side, 12.0, raised), head], 12))
        hip = Tube([(side * 88, 0, -288), (side * 90, 0, -290)], (24, 24))
        bones.append(Joined([hip, Tube([(side * 90, 0, -290), (side * 128, -8, -330)], (15, 17))], 10))
    for bone in bones:
        canvas.paint(bone, "cortical bone")
        canvas.paint(Grown(bone, -2.6), "marrow")
    paint_spine(canvas, _SPINE_COURSE, _SPINE_LEVELS, (-330.0, 385.0), (25.0, 12.0))


def paint_spine(
    canvas: Canvas,
    course: tuple[tuple[float, float], ...],
    levels: tuple[tuple[float, ...], tuple[float, ...]],
    ends: tuple[float, float],
    radii: tuple[float, float],
) -> None:
    """Vertebrae, discs, arches and the cord.

    Args:
        canvas: Where.
        course: (z, y) of the middle of the bodies, by rising z.
        levels: Heights in mm, and the count of vertebrae there.
        ends: Lowest and highest z, mm.
        radii: Half width of the bodies at both ends, mm.
    """
    along, back = np.asarray(course, np.float64).T

    def local(points: Array) -> tuple[Array, Array, Array, Array]:
        x, y, z = points
        depth = np.asarray(y - np.interp(z, along, back), np.float32)
        width = np.interp(z, (along[0], along[-1]), radii).astype(np.float32)
        phase = np.interp(z, *levels).astype(np.float32)
        return np.asarray(x), depth, width, phase - np.floor(phase)

    def body(points: Array) -> Array:
        x, depth, width, _ = local(points)
        return np.asarray((np.hypot(x / width, depth / (0.72 * width)) - 1) * 0.8 * width, np.float32)

    def disc(points: Array) -> Array:
        _, _, width, phase = local(points)
        out: Array = np.maximum(body(points) + 0.5, (0.38 - np.abs(phase - 0.5)) * width * 1.6)
        return out

    def arch(points: Array) -> Array:
        x, depth, width, phase = local(points)
        canal = np.hypot(x, depth + 0.72 * width + 9)
        ring = np.abs(canal - 11) - 3
        spine = np.maximum(np.abs(x) - 3.5, np.abs(depth + 0.72 * width + 30) - 12)
        wings = np.maximum(np.abs(x) - 1.7 * width, np.abs(depth + 0.72 * width + 7) - 4.5)
        bone = np.minimum(ring, np.minimum(spine, wings))
        out: Array = np.maximum(bone, (np.abs(phase - 0.5) - 0.3) * 26)
        return out

    def canal(points: Array) -> Array:
        x, depth, width, _ = local(points)
        return np.asarray(np.hypot(x, depth + 0.72 * width + 9), np.float32)

    # the arches' wings are the widest, the spinous processes reach back the farthest
    wide, deep = 1.8 * max(radii), 0.75 * max(radii)
    box: Bounds = ((-wide, back.min() - deep - 45, ends[0]), (wide, back.max() + deep + 5, ends[1]))
    for function, tissue in (
        (arch, "cortical bone"),
        (lambda points: arch(points) + 2.2, "marrow"),
        (body, "cortical bone"),
        (lambda points: body(points) + 2.2, "marrow"),
        (disc, "disc"),
        (lambda points: canal(points) - 8.5, "CSF"),
        (lambda points: canal(points) - 5.0, "spinal cord"),
    ):
        canvas.paint(Field(function, box), tissue)


def fat_profile(points: Array) -> Array:
    """Thickness of the fat under the skin relative to the belly's; more at the flanks and the buttocks."""
    heights = (-320, -260, -140, -40, 60, 160, 230, 290, 350, 420)
    relative = (1.15, 1.2, 1.0, 0.8, 0.5, 0.45, 0.5, 0.35, 0.25, 0.15)
    x, y, z = points
    behind = np.clip((-y - 40) / 60, 0, 1) * np.clip((-z - 200) / 60, 0, 1)
    thin = np.interp(z, heights, relative)
    return np.asarray(thin * (1 + 0.25 * np.clip(np.abs(x) / 140 - 0.4, 0, 1) + 0.3 * behind), np.float32) + 0.12


def arm(side: int, radius: float, raised: bool) -> Tube:
    """An upper arm from its shoulder out of the field of view, or a bone in it."""
    way: list[Point] = [(176, -2, 300), (196, 10, 420)] if raised else [(176, -22, 170), (196, -30, 60)]
    return Tube([(side * x, y, z) for x, y, z in [(146.0, -12.0, 218.0), *way]], (radius, radius, 0.9 * radius))


def _breast(person: Person, side: int) -> Shape:
    size = 34 + 0.9 * person.fat
    return Ellipsoid((side * 82, 96, 88), (1.35 * size, size, 1.25 * size))


def _ribs(points: Array, wall: Array) -> Array:
    """Oblique bands in the wall, `wall` mm outside the cavity, down to the costal arch."""
    x, y, z = points
    along = z + _RIB_SLOPE * y
    phase = np.mod(along, _RIB_PITCH) - _RIB_PITCH / 2
    band = np.maximum(np.abs(phase) - 6.0, np.abs(wall - 6.5) - 4.5)
    arch = np.where(y > 0, -8 - 0.95 * np.abs(x), -110) - z
    last = np.maximum(-92 - along, along - 232)
    out: Array = np.maximum(band, np.maximum(arch * 0.7, last))
    return out


def _sternum(points: Array, wall: Array) -> Array:
    x, y, z = points
    plate = np.maximum(np.abs(wall - 6.5) - 5.5, np.abs(x) - np.interp(z, (10, 60, 200, 215), (10, 17, 22, 26)))
    return np.asarray(np.maximum(plate, np.maximum(10 - y, np.maximum(12 - z, z - 214))), np.float32)


def _ilium(points: Array, wall: Array) -> Array:
    """The wing of the pelvis: within the wall, from the sacrum round to the front, under the crest."""
    x, y, z = points
    crest = z - (-168 - 0.008 * np.square(y + 5))
    front = y - np.interp(z, (-300, -240, -170), (40, 62, 40))
    wing = np.maximum(np.maximum(np.abs(wall - 7) - 6.5, crest), np.maximum(front, 36 - np.abs(x)))
    socket = np.abs(np.hypot(np.hypot(np.abs(x) - 88, y), z + 288) - 30) - 4.5
    return np.asarray(np.minimum(wing, np.maximum(socket, np.abs(x) - 96)), np.float32)
