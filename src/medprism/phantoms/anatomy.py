"""One person's brain: the tissue of the template under a personal diffeomorphism, with personal folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medprism.phantoms.box import Array, Box, sample, smooth_noise
from medprism.phantoms.deformation import flow, move
from medprism.phantoms.template import Template


@dataclass(frozen=True)
class Anatomy:
    """What makes one brain differ from the template.

    Attributes:
        size: Scale along x, y, z (1 = template).
        atrophy: 0 (young) to 1 (old): wide sulci and ventricles.
        displacement: (3, X, Y, Z) on the template's coarse lattice, scaled person space → template space, mm.
        thresholds: (3, X, Y, Z) random fields on the coarse lattice that shift the borders of white matter, CSF and
            brain surface.
    """

    template: Template
    size: tuple[float, float, float]
    atrophy: float
    displacement: Array
    thresholds: Array

    def to_template(self, points: Array) -> Array:
        """Template coordinates (N, 3) of a person's points (N, 3), mm."""
        centre = np.asarray((0, -18, 10), np.float32)
        scaled = (points - centre) / np.asarray(self.size, np.float32) + centre
        return move(np.asarray(scaled, np.float32), self.displacement, self.template.coarse)


def draw_anatomy(rng: np.random.Generator, template: Template) -> Anatomy:
    """A random person.

    Broad differences of shape (30 mm) and finer ones of the folds (9 mm) are added as velocities, and so is the flow
    that opens or closes the ventricles; the sum is integrated once, so the map cannot fold.
    """
    size = float(np.exp(rng.normal(0, 0.03))) * np.exp(rng.normal(0, 0.015, 3))
    atrophy = float(rng.beta(1.6, 1.6))
    coarse = template.coarse
    velocity = 3.5 * smooth_noise(rng, coarse, 24.0, 3) + 1.3 * smooth_noise(rng, coarse, 8.0, 3)
    # pulled towards the ventricles' centre, points near them land inside: the ventricles grow
    inward = np.stack(list(np.gradient(template.ventricles, coarse.spacing)))
    inward /= np.abs(inward).max()
    opening = -1.0 + 7.0 * atrophy
    displacement = flow(np.asarray(velocity + opening * inward, np.float32), coarse)
    thresholds = smooth_noise(rng, coarse, 5.0, 3)
    x, y, z = (float(s) for s in size)
    return Anatomy(template, (x, y, z), atrophy, displacement, thresholds)


def tissue(anatomy: Anatomy, points: Array) -> tuple[Array, Array]:
    """Tissue fractions of a healthy brain.

    Args:
        anatomy: The person.
        points: (N, 3) in person space, mm.

    Returns:
        (3, N) fractions of white matter, grey matter and CSF, adding up to 1 (outside of the brain all is CSF), and
        (N,) inside of the brain, > 0.5 inside.
    """
    there = anatomy.to_template(points)
    white, csf, inside, mixed = sample(anatomy.template.maps, anatomy.template.box, there)
    shift_white, shift_csf, shift_inside = sample(anatomy.thresholds, anatomy.template.coarse, there)
    crisp_white = _step(white - 0.5 - 0.06 * shift_white, 0.07)
    crisp_csf = _step(csf - (0.42 - 0.22 * anatomy.atrophy) - 0.05 * shift_csf, 0.05)
    # a true mixture keeps its fractions
    part_white = crisp_white + mixed * (np.clip(white, 0, 1) - crisp_white)
    part_csf = np.clip(crisp_csf, 0, 1)
    part_white = part_white * (1 - part_csf)
    fractions = np.stack([part_white, 1 - part_white - part_csf, part_csf])
    return np.asarray(fractions, np.float32), np.asarray(inside + 0.05 * shift_inside, np.float32)


def _step(value: Array, width: float) -> Array:
    return np.asarray(1 / (1 + np.exp(-value / np.float32(width))), np.float32)


def coarse_inside(anatomy: Anatomy, box: Box) -> Array:
    """(X, Y, Z) inside of the brain on a coarse lattice."""
    return tissue(anatomy, box.centres())[1].reshape(box.shape)
