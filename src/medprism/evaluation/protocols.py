"""The two protocols of modality transfer: which voxels are scored, on which scale, over which data range.

`strict` is the headline: it uses nothing of the target but its intensities at the scored voxels and their range.
`paper` is what the authors' test script of PUIR does, for comparison with its Tables 1, 2, 9 and 10. It leaks the
target twice (mask and copied background), so it is never shown without `LEAK`.

Both score one subject at a time, on the cache's intensities (normalised and clipped, see the recipe in metrics.json).
The cache is cut to the box that all scans of the subject see, so there is truth at every voxel of it.
Scores are keyed by (region, metric).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medprism.data.intensity import Scale
from medprism.evaluation.metrics import Array, mae, nmse, psnr, ssim, ssim_map

Protocol = Literal["strict", "paper"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Scores = dict[tuple[str, str], float]
Mask = NDArray[np.bool_]

LEAK = "leaks the target: its mask is drawn from the target and its background copied from the truth"

PAPER_THRESHOLD = -0.35
"""Standardised target intensity from which on a voxel is scored under `paper`."""


def strict(truth: Array, output: Array, *, foreground: Mask, scale: Scale | None = None, unit: str = "") -> Scores:
    """Scores of one output under the strict protocol.

    - Region `foreground`: the source's own foreground, which the user of a model also has. Voxels of it that are no
      tissue in the target count too: a model must not paint there. Tissue that only the target shows does not.
    - Region `volume`: every voxel of the prepared volume, background as the model wrote it.
    - Data range: largest minus smallest target intensity in the volume, the same for every source, method and region.
    - The output is scored on the scale it was written on: nothing is fitted, shifted or clipped to the truth.

    Args:
        truth: (X, Y, Z) target, normalised.
        output: (X, Y, Z) what a method wrote for it.
        foreground: (X, Y, Z) foreground of the source, or the union of those of several sources.
        scale: this subject's scale of the target, where the target has a physical unit.
        unit: that unit, such as `HU`; the error in it is metric `mae_hu`.

    Returns:
        PSNR, SSIM, NMSE and MAE in both regions; NaN where a region is empty or the truth has no range.
    """
    data_range = float(np.ptp(truth))
    similarity = ssim_map(truth, output, data_range)
    scores: Scores = {}
    for region, mask in (("foreground", foreground), ("volume", None)):
        y, x = (truth, output) if mask is None else (truth[mask], output[mask])
        scores[region, "psnr"] = psnr(y, x, data_range)
        scores[region, "ssim"] = ssim(similarity, mask)
        scores[region, "nmse"] = nmse(y, x)
        scores[region, "mae"] = mae(y, x)
        if scale is not None and unit:
            scores[region, f"mae_{unit.lower()}"] = mae(scale.invert(y), scale.invert(x))
    return scores


def paper(truths: Array, outputs: Array) -> list[Scores]:
    """Scores of all outputs made of one source under the paper's protocol. It leaks the target: say so (`LEAK`).

    The outputs are standardised together, over all of their channels; each truth is standardised over its volume.
    Voxels whose truth is then below `PAPER_THRESHOLD` are replaced in the output by the truth. Data range: the larger
    of the two ranges. The region is the whole volume, copied background included. As the authors crop to the head
    after standardising and a cache is cropped before, the threshold lies somewhat higher among the tissues here.

    Args:
        truths: (T, X, Y, Z) the targets that the subject has, dark air included (see `with_air`).
        outputs: (T, X, Y, Z) what was written for them, likewise.

    Returns:
        For each target PSNR, SSIM and NMSE of region `volume`.
    """
    outputs = _standardised(outputs)
    scores: list[Scores] = []
    for truth, output in zip(map(_standardised, truths), outputs, strict=True):
        filled = np.where(truth >= PAPER_THRESHOLD, output, truth)
        data_range = float(max(np.ptp(filled), np.ptp(truth)))
        scores.append(
            {
                ("volume", "psnr"): psnr(truth, filled, data_range),
                ("volume", "ssim"): ssim(ssim_map(truth, filled, data_range)),
                ("volume", "nmse"): nmse(truth, filled),
            }
        )
    return scores


def with_air(image: NDArray[np.float32], foreground: Mask, scale: Scale) -> NDArray[np.float32]:
    """An image (X, Y, Z) with the intensity zero of its file outside `foreground`, in normalised units.

    A cache stores the zeros around an extracted brain as 0, the mean of the tissue. The paper's threshold and
    standardisation are over volumes in which they are as dark as in the file.
    """
    return np.where(foreground, image, np.float32((0.0 - scale.offset) / scale.scale))


def _standardised(array: Array) -> Array:
    spread = float(array.std(dtype=np.float64))
    result: Array = (array - array.mean(dtype=np.float64)) / (spread or 1.0)
    return result
