"""Tissue maps of the MNI152 average that nilearn ships, made ready to be bent into one person's brain.

The maps are the symmetric ICBM 2009a templates (Fonov et al. 2011, NeuroImage 54:313, 10.1016/j.neuroimage.2010.07.033)
as packed by nilearn. An average of many brains is blurred: the folds are brought back by unsharp masking here and by
thresholds that differ from person to person in `anatomy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, distance_transform_edt, gaussian_filter, grey_opening, label

from medprism.phantoms.box import Array, Box, sample

Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]

_MARGIN = 4  # voxels kept around the brain


class Ball(NamedTuple):
    """An ellipsoid in MNI coordinates, mm; `centre` is on the right, and mirrored if not on the midline."""

    centre: Triple
    radii: Triple
    value: float = 1.0


# Parts whose voxels truly hold white and grey matter: thalamus, midbrain and pons, medulla.
_MIXED = (
    Ball((11, -18, 6), (13, 16, 12)),
    Ball((0, -26, -22), (18, 17, 20)),
    Ball((0, -34, -48), (13, 13, 20)),
)
_CEREBELLUM = (Ball((0, -62, -36), (54, 30, 26)),)
# Iron of adults in mg per 100 g: the order of Hallgren & Sourander 1958, J. Neurochem. 3:41 (pallidum and red nucleus
# most, then nigra, putamen, dentate nucleus), rounded; outlines are ours.
_IRON = (
    Ball((19, -5, -1), (5, 8, 6), 21),
    Ball((5, -20, -9), (4, 4, 4), 19),
    Ball((10, -17, -12), (5, 6, 3), 18),
    Ball((26, 2, 0), (5, 13, 9), 13),
    Ball((14, -57, -33), (8, 6, 4), 10),
)


@dataclass(frozen=True)
class Template:
    """Maps in template space.

    Attributes:
        box: Lattice of `maps`, 1 mm.
        maps: (4, X, Y, Z): white matter, CSF (grey matter is the rest), inside of the brain (0.5 at its surface),
            and how far tissue is a true mixture rather than a blurred border.
        coarse: Lattice of 4 mm around it, for velocities, random fields and smooth maps.
        cortex: (X, Y, Z) on `coarse`: 1 where folds may be, 0 deep inside.
        cerebellum: (X, Y, Z) on `coarse`: 1 where the folds are fine.
        iron: (X, Y, Z) on `coarse`: mg per 100 g above that of the cortex.
        ventricles: (X, Y, Z) on `coarse`: smooth potential whose gradient points into the lateral ventricles.
    """

    box: Box
    maps: Array
    coarse: Box
    cortex: Array
    cerebellum: Array
    iron: Array
    ventricles: Array


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read and sharpen the maps; once per process."""
    image = load_mni152_template(resolution=1)
    brain = np.asarray(image.dataobj, np.float32) > 0
    keep = tuple(slice(max(0, int(i.min()) - _MARGIN), int(i.max()) + 1 + _MARGIN) for i in np.nonzero(brain))
    brain = _closed(brain[keep])
    x, y, z = (float(o + s.start) for o, s in zip(image.affine[:3, 3], keep, strict=True))
    box = Box((x, y, z), 1.0, brain.shape)
    white = _unit(np.asarray(load_mni152_wm_template(resolution=1).dataobj, np.float32)[keep])
    grey = _unit(np.asarray(load_mni152_gm_template(resolution=1).dataobj, np.float32)[keep])
    csf = np.clip(1 - white - grey, 0, 1)

    depth = _depth(brain)
    ventricles = _ventricles(csf, depth)
    white = _without_rim(white, grey, csf, ventricles)
    mixed = _balls(box, _MIXED)
    inside = gaussian_filter(brain.astype(np.float32), 1.0)
    maps = np.stack([_unsharp(white, mixed), np.where(brain, _unsharp(csf, mixed), 1), inside, mixed])

    nx, ny, nz = (n // 4 + 7 for n in brain.shape)
    coarse = Box((x - 12, y - 12, z - 12), 4.0, (nx, ny, nz))
    lateral = ventricles & _beside_midline(box)
    potential, cortex = sample(
        np.stack([gaussian_filter(lateral.astype(np.float32), 5.0), np.clip((28 - depth) / 6, 0, 1)]),
        box,
        coarse.centres(),
    ).reshape(2, *coarse.shape)
    return Template(
        box, np.asarray(maps, np.float32), coarse, cortex, _balls(coarse, _CEREBELLUM), _balls(coarse, _IRON), potential
    )


def _unit(values: Array) -> Array:
    return np.asarray(values / values.max(), np.float32)


def _closed(brain: Mask) -> Mask:
    """The brain with the cisterns that the average leaves out: they are CSF, not outside."""
    half = binary_closing(np.pad(brain[::2, ::2, ::2], 6), iterations=5)[6:-6, 6:-6, 6:-6]
    x, y, z = brain.shape
    return np.asarray(half.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:x, :y, :z] | brain)


def _depth(brain: Mask) -> Array:
    """Distance (X, Y, Z) from the surface of the brain, mm, to the nearest 2 mm."""
    half = distance_transform_edt(brain[::2, ::2, ::2]) * 2
    x, y, z = brain.shape
    return np.asarray(half.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:x, :y, :z], np.float32)


def _ventricles(csf: Array, depth: Array) -> Mask:
    """Lateral and third ventricles: the large pieces of CSF far from the surface of the brain."""
    pieces, _ = label((csf > 0.5) & (depth > 22))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes > 500)[pieces])


def _beside_midline(box: Box) -> Mask:
    """Where the lateral ventricles are and the third, which age widens little, is not."""
    x, _, z = (o + np.arange(n) * box.spacing for o, n in zip(box.origin, box.shape, strict=True))
    return np.asarray((np.abs(x)[:, None] > 7) | (z > 12))[:, None, :]


def _without_rim(white: Array, grey: Array, csf: Array, ventricles: Mask) -> Array:
    """White matter up to the ventricles.

    Between white matter and ventricle the average has a sheet of "grey matter" that is only the blur of the two; sheets
    thinner than 5 mm are given back to them.
    """
    near = tuple(slice(int(i.min()) - 10, int(i.max()) + 11) for i in np.nonzero(ventricles))
    close = gaussian_filter(ventricles[near].astype(np.float32), 3.0) > 0.01
    sheet = np.where(close, grey[near] - grey_opening(grey[near], (5, 5, 5)), 0)
    white = white.copy()
    white[near] += sheet * white[near] / (white[near] + csf[near] + 1e-3)
    return white


def _balls(box: Box, balls: Sequence[Ball]) -> Array:
    """The balls' values (X, Y, Z) inside of them, falling to 0 at 1.26 radii; the largest where they meet."""
    axes = [np.float32(o + np.arange(n) * box.spacing) for o, n in zip(box.origin, box.shape, strict=True)]
    filled = np.zeros(box.shape, np.float32)
    for ball in balls:
        x, y, z = (np.square((a - c) / r) for a, c, r in zip(axes, ball.centre, ball.radii, strict=True))
        x = np.minimum(x, np.square((axes[0] + ball.centre[0]) / ball.radii[0]))
        distance = x[:, None, None] + y[None, :, None] + z[None, None, :]
        filled = np.maximum(filled, ball.value * np.clip((1.6 - distance) / 0.6, 0, 1))
    return np.asarray(filled, np.float32)


def _unsharp(values: Array, mixed: Array) -> Array:
    """Bring out folds thinner than the blur of the average, outside true mixtures."""
    return np.asarray(values + (1 - mixed) * np.float32(0.8) * (values - gaussian_filter(values, 3.0)), np.float32)
