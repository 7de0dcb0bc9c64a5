"""Lesions that may not be there: scores of scans, a part of which has none, as on AutoPET.

Each is a value of one scan, NaN where the scan does not count, so that a mean over scans is the figure that is known.
A scan is positive if it has any lesion voxel, and found positive if the output has any.

- `tpr`, `fnr` over positive scans, `tnr`, `fpr` over negative ones: the shares that are found (not) positive.
- `dice_minus` (DICE- of PUIR): Dice of positive scans.
- `dice_paper` (DICE of PUIR): Dice of positive scans and 0 for false positive ones; true negatives do not count.
- `dice_tn0`: Dice of positive scans and 0 for all negative ones, found or not.
- `fpv_ml`: volume of the output's components that touch no lesion. `fnv_ml`, over positive scans: volume of the lesions
  that the output does not touch. Components are connected by faces and edges (18 neighbours), as in the challenge.

PUIR's text (section 4.2.2) sets DICE to zero "for false negatives and true negatives" and calls DICE- "the mean across
all samples". Its Tables 7 and 8 were not made so: in each of their rows, and in the first version's row of UNETR too,
DICE / DICE- = P / (P + FP), with P the positive and FP the false positive scans that TPR and FPR tell (P = 93 of 203).
This is what the definitions above give. `dice_tn0` is the text to the letter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medprism.evaluation.overlap import Mask, bounds

METRICS = ("dice_paper", "dice_minus", "tpr", "tnr", "fnr", "fpr", "fpv_ml", "fnv_ml", "dice_tn0")
"""In the order of the paper's Table 8, then the challenge's, then the text to the letter."""

_NEIGHBOURS = ndimage.generate_binary_structure(3, 2)


def detection(truth: Mask, output: Mask, dice: float, millilitres: float) -> dict[str, float]:
    """All scores of one scan.

    Args:
        truth: (X, Y, Z) lesions.
        output: (X, Y, Z) what was found.
        dice: of the two.
        millilitres: volume of a voxel.

    Returns:
        Metric -> value, in the order of `METRICS`.
    """
    positive, found, nan = bool(truth.any()), bool(output.any()), float("nan")
    return {
        "dice_paper": dice if positive else 0.0 if found else nan,
        "dice_minus": dice if positive else nan,
        "tpr": float(found) if positive else nan,
        "tnr": nan if positive else float(not found),
        "fnr": float(not found) if positive else nan,
        "fpr": nan if positive else float(found),
        "fpv_ml": untouched(output, truth) * millilitres,
        "fnv_ml": untouched(truth, output) * millilitres if positive else nan,
        "dice_tn0": dice if positive else 0.0,
    }


def untouched(mask: Mask, other: Mask) -> int:
    """Voxels in those components of a mask (X, Y, Z) that share no voxel with another mask."""
    box = bounds(mask)
    if box is None:
        return 0
    components: NDArray[np.int32]
    components, count = ndimage.label(mask[box], structure=_NEIGHBOURS)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[components[other[box]]] = 0
    return int(sizes[1:].sum())
