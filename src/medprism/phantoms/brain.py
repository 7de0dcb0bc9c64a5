"""One phantom brain: anatomy → tumour → tissue → signals → scanner."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from medprism.phantoms.anatomy import Anatomy, draw_anatomy, tissue
from medprism.phantoms.box import Array, Box, block_mean, head_box, sample, smooth_noise
from medprism.phantoms.mri import TISSUES, with_contrast, with_iron
from medprism.phantoms.scanner import Protocol, Scanner, scanner_preset
from medprism.phantoms.template import load_template
from medprism.phantoms.tumour import LOW_GRADE, Tumour, grow

LABELS = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}

# The tissue is computed on voxels at most this large and averaged into those of the image: partial volume.
_INTERNAL = 1.5
_FWHM_TO_SIGMA = 1 / 2.3548
# Which label each of the tumour's parts (`Tumour.parts`) counts as.
_PART_LABELS = (1, 2, 3, 1)


@dataclass(frozen=True)
class Brain:
    """One subject.

    Attributes:
        images: (X, Y, Z) float32 by modality, exactly 0 outside of the brain.
        label: (X, Y, Z) uint8, see LABELS.
        affine: (4, 4) voxel → world mm, RAS+.
        truth: Parameters that made it.
    """

    images: dict[str, Array]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    truth: dict[str, object]


def brain_subject(
    seed: int, index: int, spacing: float = 3.0, scanner: str = "A", low_grade: float = LOW_GRADE
) -> Brain:
    """Make one subject; a pure function of its arguments.

    Anatomy and tumour depend on seed and index only: another spacing or scanner images the same person.

    Args:
        seed: Of the cohort.
        index: Of the person within it.
        spacing: Voxel side, mm.
        scanner: Preset, see `scanner`.
        low_grade: Probability that the tumour does not enhance.

    Raises:
        UserError: Unknown scanner.
    """
    preset = scanner_preset(scanner)
    anatomy = draw_anatomy(_rng(seed, index, "anatomy"), load_template())
    tumour = grow(_rng(seed, index, "tumour"), anatomy, low_grade)
    out = head_box(spacing)
    factor = max(1, ceil(spacing / _INTERNAL - 1e-6))
    box = out.finer(factor)

    where, points = _points_near_brain(anatomy, tumour, box)
    before = tumour.before(points)
    there = anatomy.to_template(before)
    healthy = tissue(anatomy, there)
    brain = healthy.fractions[0] + healthy.fractions[1]
    parts = tumour.parts(before, healthy.fractions[1]) * brain  # nothing grows in CSF
    rest = 1 - parts.sum(0) / np.maximum(brain, 1e-6)
    fractions = np.concatenate([healthy.fractions[:2] * rest, healthy.fractions[2:], parts])
    inside = healthy.inside

    mask = _one_piece(block_mean(_spread(inside > 0.5, where, box), factor) > 0.5)
    segmentation = _majority(parts, where, box, factor) * mask
    signals = _signals(_rng(seed, index, "tissue"), preset, anatomy, there, fractions)
    fields = _bias(_rng(seed, index, "bias"), preset, out)
    noise = _rng(seed, index, "noise", scanner)
    images = {}
    for (name, protocol), signal, field in zip(preset.protocols.items(), signals, fields, strict=True):
        blurred = _blur(_spread(signal, where, box), protocol, box)
        images[name] = _measure(noise, block_mean(blurred, factor) * field, protocol, spacing, mask)
    truth: dict[str, object] = {
        "size": list(anatomy.size),
        "atrophy": anatomy.atrophy,
        "enhances": tumour.enhances,
        "seed_mm": list(tumour.seed),
        "mass_effect_mm": tumour.push,
    }
    return Brain(images, segmentation.astype(np.uint8), out.affine, truth)


def _rng(seed: int, index: int, *purpose: str) -> np.random.Generator:
    """Numbers for one purpose: what one part draws never shifts what another part gets."""
    return np.random.default_rng([seed, index, *"/".join(purpose).encode()])


def _points_near_brain(anatomy: Anatomy, tumour: Tumour, box: Box) -> tuple[NDArray[np.intp], Array]:
    """Flat indices (N,) into `box` and world points (N, 3) of the voxels in and close around the brain."""
    coarse = head_box(4.0)
    points = anatomy.to_template(tumour.before(coarse.centres()))
    inside = tissue(anatomy, points).inside.reshape(coarse.shape)
    near = gaussian_filter(inside, 1.5) > 0.05
    axes = [
        np.clip(np.rint((o - c + np.arange(n) * box.spacing) / coarse.spacing).astype(int), 0, m - 1)
        for o, n, c, m in zip(box.origin, box.shape, coarse.origin, coarse.shape, strict=True)
    ]
    where = np.flatnonzero(near[np.ix_(*axes)])
    return where, box.world(np.stack(np.unravel_index(where, box.shape), 1))


def _one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece."""
    pieces, _ = label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def _spread(values: NDArray[np.generic], where: NDArray[np.intp], box: Box) -> Array:
    """Values (N,) at flat indices → (X, Y, Z), zero elsewhere."""
    volume = np.zeros(int(np.prod(box.shape)), np.float32)
    volume[where] = values
    return volume.reshape(box.shape)


def _majority(parts: Array, where: NDArray[np.intp], box: Box, factor: int) -> NDArray[np.uint8]:
    """The label that most of an image voxel's fine voxels have."""
    total = parts.sum(0)
    fine = np.where(total > 0.5, np.asarray(_PART_LABELS)[parts.argmax(0)], 0)
    votes = np.stack([block_mean(_spread(fine == value, where, box), factor) for value in (1, 2, 3)])
    votes = np.concatenate([1 - votes.sum(0, keepdims=True), votes])
    return np.asarray(votes.argmax(0), np.uint8)


def _signals(
    rng: np.random.Generator, preset: Scanner, anatomy: Anatomy, points: Array, fractions: Array
) -> list[Array]:
    """Signal (N,) per modality: each tissue by its own T1, T2 and PD at that place, added up by fraction."""
    coarse = anatomy.template.coarse
    # regional, local and fine differences; the weights' squares add up to 1
    scales = ((0.5, 20.0), (0.6, 8.0), (0.62, 4.0))
    noise = np.sum([weight * smooth_noise(rng, coarse, scale, 3) for weight, scale in scales], 0)
    maps = np.concatenate([noise, anatomy.template.iron[None]]).astype(np.float32)
    water, second, third, iron = sample(maps, coarse, points)
    # more water lengthens both T1 and T2
    variation = np.stack([water, 0.4 * water + 0.92 * second, 0.5 * water + 0.87 * third])
    signals = [np.zeros(points.shape[0], np.float32) for _ in preset.protocols]
    for constants, part in zip(TISSUES.values(), fractions, strict=True):
        jitter = np.exp(rng.normal(0, (0.03, 0.03, 0.01)))
        here = np.flatnonzero(part > 1e-3)
        t1, t2, pd = (
            np.float32(value * scale) * np.exp(np.float32(constants.texture * share) * v[here])
            for value, scale, share, v in zip(
                (constants.t1, constants.t2, constants.pd), jitter, (1, 1, 0.2), variation, strict=True
            )
        )
        t2 = with_iron(t2, iron[here])
        leaked = np.float32(constants.gadolinium) * np.exp(2 * np.float32(constants.texture) * third[here])
        for signal, protocol in zip(signals, preset.protocols.values(), strict=True):
            shortened = with_contrast(t1, leaked) if protocol.contrast else t1
            signal[here] += part[here] * protocol.sequence.signal(shortened, t2, pd)
    return signals


def _blur(volume: Array, protocol: Protocol, box: Box) -> Array:
    """Point spread of the acquisition beyond that of the voxel itself."""
    sigma = [fwhm * _FWHM_TO_SIGMA / box.spacing for fwhm in protocol.blur]
    return np.asarray(gaussian_filter(volume, [s if s > 0.25 else 0 for s in sigma], truncate=3.0), np.float32)


def _bias(rng: np.random.Generator, preset: Scanner, box: Box) -> list[Array]:
    """Receive field (X, Y, Z) per modality: mostly that of the coil, a little of each acquisition."""
    lattice = head_box(16.0)
    common, *own = smooth_noise(rng, lattice, 40.0, 1 + len(preset.protocols))
    fields = np.stack([np.exp(preset.bias * (0.8 * common + 0.6 * each)) for each in own])
    return list(sample(fields, lattice, box.centres()).reshape(len(own), *box.shape))


def _measure(
    rng: np.random.Generator, signal: Array, protocol: Protocol, spacing: float, mask: NDArray[np.bool_]
) -> Array:
    """Magnitude of signal plus complex noise (Rician), brain-extracted."""
    white = TISSUES["WM"]
    reference = protocol.sequence.signal(*(np.float32(v) for v in (white.t1, white.t2, white.pd)))  # type: ignore[arg-type]
    # noise falls with the volume of the voxel as that of averaged 1 mm voxels does
    sigma = np.float32(protocol.noise * abs(float(reference)) * spacing**-1.5)
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    magnitude = np.float32(protocol.gain) * np.hypot(real, imaginary)
    return np.asarray(np.where(mask, magnitude, 0), np.float32)
