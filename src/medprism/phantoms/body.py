"""One phantom body: person → organs → lesions → CT and PET."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.phantoms.body_belly import paint_belly
from medprism.phantoms.body_canvas import Canvas, Person, Vary, draw_person
from medprism.phantoms.body_chest import paint_chest
from medprism.phantoms.body_head import head_muscle, head_skin, paint_head
from medprism.phantoms.body_lesion import draw_lesions, has_lesions, paint_lesions
from medprism.phantoms.body_torso import paint_bones, paint_wall, trunk_muscle, trunk_skin
from medprism.phantoms.box import Array, Box
from medprism.phantoms.petct import petct_preset, scan_ct, scan_pet
from medprism.phantoms.shapes import Bounds, Field

LABELS = {"background": 0, "lesion": 1}
REGIONS = {"lesion": [1]}
# The fields of view in mm: neck to hips with the arms raised, vertex to upper chest with the arms down.
DOMAINS: dict[str, Bounds] = {
    "torso": ((-256.0, -205.0, -320.0), (256.0, 200.0, 270.0)),
    "head-neck": ((-270.0, -205.0, 150.0), (270.0, 165.0, 575.0)),
}
# Grid on which lesions are placed, whatever the image's, mm.
_PLAN = 8.0


@dataclass(frozen=True)
class Body:
    """One subject.

    Attributes:
        images: (X, Y, Z) float32: `ct` in HU, `pet` in SUV, `nac` in arbitrary units.
        label: (X, Y, Z) uint8, see LABELS.
        affine: (4, 4) voxel → world mm, RAS+.
        truth: Parameters that made it.
        uptake: (X, Y, Z) SUV before the scanner.
        kind: (X, Y, Z) uint8 index of the healthy tissue, see `body_tissue.NAMES`.
    """

    images: dict[str, Array]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    truth: dict[str, object]
    uptake: Array
    kind: NDArray[np.uint8]


def body_subject(seed: int, index: int, spacing: float = 4.5, domain: str = "torso", scanner: str = "A") -> Body:
    """Make one subject; a pure function of its arguments.

    Person and lesions depend on seed, index and domain only: another spacing or scanner images the same person. The
    two domains of one seed are different persons.

    Args:
        seed: Of the cohort.
        index: Of the person within it.
        spacing: Voxel side, mm.
        domain: "torso" or "head-neck".
        scanner: Preset, see `petct`.

    Raises:
        UserError: Unknown domain or scanner.
    """
    preset = petct_preset(scanner)
    check_domain(domain)
    person = draw_person(_rng(seed, index, domain, "person"))
    lesions = []
    if has_lesions(seed, index):
        plan = _paint(_box(domain, _PLAN), person, seed, index, domain)
        lesions = draw_lesions(_rng(seed, index, domain, "lesions"), plan, domain)
    box = _box(domain, spacing)
    canvas = _paint(box, person, seed, index, domain)
    part = paint_lesions(canvas, lesions)
    label = part > 0.5
    if lesions and not label.any():
        label = part == part.max()  # voxels far larger than the lesions
    ct = scan_ct(canvas.hu, spacing, preset, _rng(seed, index, domain, "ct", scanner))
    pet, nac = scan_pet(canvas.suv, canvas.hu, spacing, preset, _rng(seed, index, domain, "pet", scanner))
    truth: dict[str, object] = {
        "size": list(person.size),
        "fat_mm": person.fat,
        "female": person.female,
        "age": person.age,
        "lesions": [asdict(lesion) for lesion in lesions],
    }
    images = {"ct": ct, "pet": pet, "nac": nac}
    return Body(images, label.astype(np.uint8), box.affine, truth, canvas.suv, canvas.kind)


def check_domain(domain: str) -> None:
    """Raise UserError on an unknown field of view."""
    if domain not in DOMAINS:
        raise UserError(f"expected domain {' or '.join(DOMAINS)}, got {domain!r}; choose one of them")


def _rng(seed: int, index: int, *purpose: str) -> np.random.Generator:
    """Numbers for one purpose: what one part draws never shifts what another part gets."""
    return np.random.default_rng([seed, index, *"/".join(purpose).encode()])


def _box(domain: str, spacing: float) -> Box:
    low, high = DOMAINS[domain]
    x, y, z = (ceil((b - a) / spacing - 1e-6) for a, b in zip(low, high, strict=True))
    ox, oy, oz = ((a + b - (n - 1) * spacing) / 2 for a, b, n in zip(low, high, (x, y, z), strict=True))
    return Box((ox, oy, oz), float(spacing), (x, y, z))


def _paint(box: Box, person: Person, seed: int, index: int, domain: str) -> Canvas:
    """The healthy person on a grid."""
    canvas = Canvas(box, person, _rng(seed, index, domain, "canvas"))
    vary = Vary(_rng(seed, index, domain, "organs"))
    raised = domain == "torso"
    skin, muscle = trunk_skin(person, raised), trunk_muscle(raised)
    if domain == "head-neck":
        skin, muscle = head_skin(skin), head_muscle(muscle)
    _paint_couch(canvas, person)
    paint_wall(canvas, person, vary, skin, muscle)
    paint_bones(canvas, vary, raised)
    paint_chest(canvas, person, vary)
    if domain == "torso":
        paint_belly(canvas, person, vary)
    else:
        paint_head(canvas, person, vary)
    return canvas


def _paint_couch(canvas: Canvas, person: Person) -> None:
    """A shell of 4 mm under the back: a shallow trough."""
    back = -(person.size[1] * (118 + 1.1 * person.fat) + 10)

    def trough(points: Array) -> Array:
        height = points[1] - (back + np.square(points[0] / 210) * 25)
        plate = np.minimum(np.abs(height + 2), np.abs(height + 34)) - 2
        return np.asarray(np.maximum(plate, np.abs(points[0]) - 205), np.float32)

    canvas.paint(Field(trough), "couch", world=True)
