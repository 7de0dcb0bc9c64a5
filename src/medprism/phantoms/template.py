"""Tissue maps of the MNI152 average that nilearn ships, made ready to be bent into one person's brain.

The maps are the symmetric ICBM 2009a templates (Fonov et al. 2011, NeuroImage 54:313, 10.1016/j.neuroimage.2010.07.033)
as packed by nilearn. An average of many brains is blurred: the folds are brought back by unsharp masking here and by
thresholds that differ from person to person in `anatomy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, grey_opening, label

from medprism.phantoms.box import Array, Box, sample

Mask = NDArray[np.bool_]

_MARGIN = 4  # voxels kept around the brain


@dataclass(frozen=True)
class Template:
    """Maps in template space.

    Attributes:
        box: Their lattice, 1 mm.
        maps: (4, X, Y, Z): white matter, CSF (grey matter is the rest), inside of the brain (0.5 at its surface),
            and how far tissue is a true mixture (thalamus, brain stem) rather than a blurred border.
        coarse: Lattice of 4 mm around it, for velocities and random fields.
        ventricles: (X, Y, Z) on `coarse`: smooth potential whose gradient points into the ventricles.
    """

    box: Box
    maps: Array
    coarse: Box
    ventricles: Array


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read and sharpen the maps; once per process."""
    image = load_mni152_template(resolution=1)
    brain = np.asarray(image.dataobj, np.float32) > 0
    keep = tuple(slice(max(0, int(i.min()) - _MARGIN), int(i.max()) + 1 + _MARGIN) for i in np.nonzero(brain))
    start = [float(s.start) for s in keep]
    ox, oy, oz = (float(v) for v in image.affine[:3, 3] + start)
    brain = brain[keep]
    box = Box((ox, oy, oz), 1.0, brain.shape)
    white = _unit(np.asarray(load_mni152_wm_template(resolution=1).dataobj, np.float32)[keep])
    grey = _unit(np.asarray(load_mni152_gm_template(resolution=1).dataobj, np.float32)[keep])
    csf = np.clip(1 - white - grey, 0, 1)

    ventricles = _ventricles(csf, brain)
    white = _without_rim(white, grey, csf, ventricles)
    mixed = _mixture(box)
    inside = gaussian_filter(brain.astype(np.float32), 1.0)
    maps = np.stack([_unsharp(white, mixed), np.where(brain, _unsharp(csf, mixed), 1), inside, mixed])

    coarse = Box((ox - 12.0, oy - 12.0, oz - 12.0), 4.0, tuple(n // 4 + 7 for n in brain.shape))
    potential = sample(gaussian_filter(ventricles.astype(np.float32), 5.0)[None], box, coarse.centres())
    return Template(box, np.asarray(maps, np.float32), coarse, potential.reshape(coarse.shape))


def _unit(values: Array) -> Array:
    return np.asarray(values / values.max(), np.float32)


def _ventricles(csf: Array, brain: Mask) -> Mask:
    """Lateral and third ventricles: the CSF far from the surface of the brain."""
    depth = distance_transform_edt(brain[::2, ::2, ::2]) * 2
    deep = np.repeat(np.repeat(np.repeat(depth, 2, 0), 2, 1), 2, 2)[
        : brain.shape[0], : brain.shape[1], : brain.shape[2]
    ]
    pieces, _ = label((csf > 0.5) & (deep > 22))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes > 500)[pieces])


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


def _mixture(box: Box) -> Array:
    """1 in thalamus and brain stem, whose voxels truly hold both kinds of tissue, 0 in the rest, smooth between."""
    centres = ((-11.0, -18.0, 6.0), (11.0, -18.0, 6.0), (0.0, -26.0, -22.0), (0.0, -34.0, -48.0))
    radii = ((13.0, 16.0, 12.0), (13.0, 16.0, 12.0), (18.0, 17.0, 20.0), (13.0, 13.0, 20.0))
    mixture = np.zeros(box.shape, np.float32)
    axes = [
        np.float32(o) + np.arange(n, dtype=np.float32) * np.float32(box.spacing)
        for o, n in zip(box.origin, box.shape, strict=True)
    ]
    for centre, radius in zip(centres, radii, strict=True):
        x, y, z = (np.square((a - c) / r) for a, c, r in zip(axes, centre, radius, strict=True))
        distance = x[:, None, None] + y[None, :, None] + z[None, None, :]
        mixture = np.maximum(mixture, np.clip(1.6 - distance, 0, 1))
    return mixture


def _unsharp(values: Array, mixed: Array) -> Array:
    """Bring out folds thinner than the blur of the average, outside true mixtures."""
    return np.asarray(values + (1 - mixed) * np.float32(0.8) * (values - gaussian_filter(values, 3.0)), np.float32)
