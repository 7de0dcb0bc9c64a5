"""One person's brain: the tissue of the template under a personal diffeomorphism, with personal folds and vessels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medprism.phantoms.box import Array, Box, sample, smooth_noise
from medprism.phantoms.deformation import flow, move
from medprism.phantoms.template import Template

_CENTRE = np.asarray((0, -18, 10), np.float32)  # of the brain, mm: what scaling keeps in place
_FOLIA = Box((-66.0, -102.0, -74.0), 1.5, (89, 54, 50))  # fine lattice around the cerebellum


@dataclass(frozen=True)
class Anatomy:
    """What makes one brain differ from the template.

    Attributes:
        template: What it is bent from.
        size: Scale along x, y, z (1 = template).
        atrophy: 0 (young) to 1 (old): wide sulci and ventricles.
        displacement: (3, X, Y, Z) on the template's coarse lattice, scaled person space → template space, mm.
        fields: (8, X, Y, Z) on the coarse lattice: random shifts of the borders of white matter, CSF and brain
            surface, the folds' field, two vessel fields, and the template's cortex and cerebellum.
        folia: (1, X, Y, Z) on `_FOLIA`: the folds' field in the cerebellum.
    """

    template: Template
    size: tuple[float, float, float]
    atrophy: float
    displacement: Array
    fields: Array
    folia: Array

    def to_template(self, points: Array) -> Array:
        """Template coordinates (N, 3) of a person's points (N, 3), mm."""
        scaled = (points - _CENTRE) / np.asarray(self.size, np.float32) + _CENTRE
        return move(np.asarray(scaled, np.float32), self.displacement, self.template.coarse)


@dataclass(frozen=True)
class Tissue:
    """Healthy tissue at N points.

    Attributes:
        fractions: (4, N) of white matter, grey matter, CSF and vessels, adding up to 1; outside of the brain all CSF.
        inside: (N,) > 0.5 inside of the brain.
    """

    fractions: Array
    inside: Array


def draw_anatomy(rng: np.random.Generator, template: Template) -> Anatomy:
    """A random person.

    Broad differences of shape (24 mm) and finer ones of the folds (8 mm) are added as velocities, and so is the flow
    that opens or closes the ventricles; the sum is integrated once, so the map cannot fold.
    """
    x, y, z = (float(s) for s in np.exp(rng.normal(0, 0.03) + rng.normal(0, 0.015, 3)))
    atrophy = float(rng.beta(1.6, 1.6))
    coarse = template.coarse
    velocity = 3.5 * smooth_noise(rng, coarse, 24.0, 3) + 1.3 * smooth_noise(rng, coarse, 8.0, 3)
    # pulled towards the ventricles' centre, points near them land inside: the ventricles grow
    inward = np.stack(list(np.gradient(template.ventricles, coarse.spacing)))
    inward /= np.abs(inward).max()
    opening = -1.0 + 7.0 * atrophy
    displacement = flow(np.asarray(velocity + opening * inward, np.float32), coarse)
    borders = smooth_noise(rng, coarse, 5.0, 6)
    fields = np.concatenate([borders, template.cortex[None], template.cerebellum[None]])
    return Anatomy(template, (x, y, z), atrophy, displacement, fields, smooth_noise(rng, _FOLIA, 1.5))


def tissue(anatomy: Anatomy, points: Array) -> Tissue:
    """Healthy tissue of a person.

    The template tells where white matter, cortex and CSF may be; a personal field f decides between them where the
    average cannot: its zeros are sheets, the sulci, and white matter reaches furthest out where |f| is large. Vessels
    run where two fields are zero at once, which is along curves, and lie in CSF.

    Args:
        anatomy: The person.
        points: (N, 3) in template space (see `Anatomy.to_template`), mm.
    """
    white, csf, inside, mixed = sample(anatomy.template.maps, anatomy.template.box, points)
    fields = sample(anatomy.fields, anatomy.template.coarse, points)
    shift_white, shift_csf, shift_inside, fold, across, along, cortex, cerebellum = fields
    fine = np.flatnonzero(cerebellum > 0.01)
    fold[fine] += cerebellum[fine] * (sample(anatomy.folia, _FOLIA, points[fine])[0] - fold[fine])

    crown = 0.26 * cortex * (np.abs(fold) - 0.8)
    sulcus = (0.28 + 0.1 * cerebellum) * cortex * np.square(1 - np.clip(white, 0, 1)) * np.exp(-np.square(fold / 0.3))
    part_white = _step(white - 0.5 + crown - 0.05 * shift_white, 0.07)
    part_csf = _step(csf - (0.44 - 0.22 * anatomy.atrophy) + sulcus - 0.04 * shift_csf, 0.05)
    # a true mixture keeps its fractions
    part_white += mixed * (np.clip(white, 0, 1) - part_white)
    part_white *= 1 - part_csf
    vessel = part_csf * np.exp(-(np.square(across) + np.square(along)) / (2 * 0.15**2))
    fractions = np.stack([part_white, 1 - part_white - part_csf, part_csf - vessel, vessel])
    inside = inside - 0.1 + 0.12 * np.clip(shift_inside, -2.5, 2.5)  # deep inside it stays above 0.5
    return Tissue(np.asarray(fractions, np.float32), np.asarray(inside, np.float32))


def _step(value: Array, width: float) -> Array:
    return np.asarray(1 / (1 + np.exp(-value / np.float32(width))), np.float32)
