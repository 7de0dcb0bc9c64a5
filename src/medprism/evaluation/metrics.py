"""How far one volume is from another: MAE, NMSE, PSNR, SSIM.

Every function takes float arrays of one shape; sums are in double precision. Nothing here chooses which voxels count
or what the data range is: that is a protocol (`medprism.evaluation.protocols`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Array = NDArray[np.float32] | NDArray[np.float64]

HIGHER_IS_BETTER = frozenset(
    {"psnr", "ssim", "dice", "dice_paper", "dice_minus", "dice_tn0", "tpr", "tnr", "acc", "balanced_acc", "auc", "f1"}
)
"""The metrics of which more is better; of all others (errors) less is."""

PSNR_CAP = 100.0
"""PSNR of a perfect copy, in dB: infinity has no mean and no place in JSON."""

SSIM_WINDOW = 7
"""Side of the SSIM window in voxels, scikit-image's default."""


def mae(truth: Array, output: Array) -> float:
    """Mean absolute error, in the unit of the arrays; NaN of empty arrays."""
    return float(np.abs(_difference(truth, output)).mean()) if truth.size else float("nan")


def mse(truth: Array, output: Array) -> float:
    """Mean squared error, in the squared unit of the arrays; NaN of empty arrays."""
    return float(np.square(_difference(truth, output)).mean()) if truth.size else float("nan")


def nmse(truth: Array, output: Array) -> float:
    """Squared error over the truth's own squared size: Σ(output − truth)² / Σ truth².

    It depends on where the intensity scale has its zero. On z-scored intensities, 1 is what the constant mean scores.
    NaN where the truth is empty or zero everywhere.
    """
    power = float(np.square(truth, dtype=np.float64).sum())
    return float(np.square(_difference(truth, output)).sum()) / power if power else float("nan")


def psnr(truth: Array, output: Array, data_range: float) -> float:
    """Peak signal-to-noise ratio, 10 log₁₀(data_range² / MSE) in dB, at most `PSNR_CAP`.

    Args:
        truth: any shape.
        output: same shape.
        data_range: largest minus smallest intensity that counts as the signal's range.

    Returns:
        dB; NaN where there is no voxel or no range.
    """
    error = mse(truth, output)
    if not data_range > 0 or np.isnan(error):
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(min(PSNR_CAP, 10 * np.log10(np.square(np.float64(data_range)) / error)))


def ssim_map(truth: Array, output: Array, data_range: float) -> Array:
    """Structural similarity at each voxel: scikit-image's, 3-D, uniform window, sample covariance.

    Args:
        truth: (X, Y, Z).
        output: (X, Y, Z).
        data_range: as for `psnr`.

    Returns:
        (X, Y, Z). A window reaches 3 voxels to each side (less where the volume is thinner than 7), so values next to
        a mask's rim also depend on what lies just outside it. NaN everywhere where there is no range.
    """
    side = _window(truth.shape)
    if not data_range > 0 or side < 3:
        return np.full(truth.shape, np.nan)
    both = (np.ascontiguousarray(array, dtype=np.float32) for array in (truth, output))
    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        *both, data_range=data_range, win_size=side, full=True
    )
    values: Array = similarity
    return values


def ssim(similarity: Array, mask: NDArray[np.bool_] | None = None) -> float:
    """Mean of an SSIM map over a mask, or over the volume less the rim where windows are cut (as scikit-image does).

    Args:
        similarity: (X, Y, Z) from `ssim_map`.
        mask: (X, Y, Z), or None for the volume.

    Returns:
        At most 1; NaN of an empty mask.
    """
    if mask is not None:
        return float(similarity[mask].mean(dtype=np.float64)) if mask.any() else float("nan")
    rim = _window(similarity.shape) // 2
    return float(similarity[tuple(slice(rim, n - rim) for n in similarity.shape)].mean(dtype=np.float64))


def _window(shape: tuple[int, ...]) -> int:
    """Side of the window: odd, and no longer than the volume is thin."""
    side = min(SSIM_WINDOW, *shape)
    return side - 1 + side % 2


def _difference(truth: Array, output: Array) -> NDArray[np.float64]:
    return np.subtract(output, truth, dtype=np.float64)
