"""Source, generated, true and difference, in three planes, for the best, the median and the worst subject."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medprism.evaluation.slices import PLANES
from medprism.report.style import DIVERGING, png_uri

MOST_PAIRS = 20
MOST_PIXELS = 256  # sides beyond are thinned out


@dataclass(frozen=True)
class Viewer:
    """What the page needs to show one subject.

    Attributes:
        rank: best, median or worst.
        subject: name.
        value: what it was ranked by.
        pairs: (source, target) names that can be chosen.
        planes: name and width : height of each.
        images: picture by key: `<plane>/true/<modality>`, `<plane>/made/<source>/<target>`, `…/diff/…`.
        ranges: target -> largest difference that the colours tell apart, in normalised units.
        left_out: how many pairs are not shown.
        absent: modalities that the subject lacks.
    """

    rank: str
    subject: str
    value: float
    pairs: list[tuple[str, str]]
    planes: list[tuple[str, float]]
    images: dict[str, str]
    ranges: dict[str, str]
    left_out: int
    absent: list[str]


def viewers(path: Path, modalities: list[str]) -> tuple[list[Viewer], str]:
    """Everything to show of slices.npz, and what the subjects were ranked by."""
    with np.load(path, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
        arrays = {name: stored[name] for name in stored.files if name != "about"}
    made = []
    for rank, info in about["subjects"].items():
        own = {name.removeprefix(f"{rank}/"): array for name, array in arrays.items() if name.startswith(f"{rank}/")}
        made.append(_viewer(rank, info, own, modalities))
    return made, about["score"]


def _viewer(rank: str, info: dict[str, Any], arrays: dict[str, NDArray[Any]], modalities: list[str]) -> Viewer:
    present = [k for k, here in enumerate(info["present"]) if here]
    sources = [k for k in present if f"{PLANES[0]}/generated/{k}" in arrays]
    pairs = [(i, j) for i in sources for j in range(len(modalities)) if i != j]
    shown = pairs[:MOST_PAIRS]
    spacing = dict(zip(PLANES, ((0, 1), (0, 2), (1, 2)), strict=True))
    images: dict[str, str] = {}
    planes = []
    windows = {k: window([arrays[f"{plane}/images"][k] for plane in PLANES]) for k in present}
    for plane in PLANES:
        across, up = (info["spacing"][axis] for axis in spacing[plane])
        rows, columns = display(arrays[f"{plane}/images"][0]).shape
        planes.append((plane, round(columns * across / (rows * up), 4)))
        for k in present:
            inside = arrays[f"{plane}/foreground"][k] | ~np.bool_(info["cut_out"][k])
            image = np.where(inside, arrays[f"{plane}/images"][k], windows[k][0])
            images[f"{plane}/true/{modalities[k]}"] = png_uri(display(image), *windows[k])
        for i, j in shown:
            name = f"{modalities[i]}/{modalities[j]}"
            output = arrays[f"{plane}/generated/{i}"][j].astype(np.float32)
            low, high = windows.get(j) or window([output])
            # Round an extracted brain there is nothing to see: both are shown where the source has tissue.
            inside = arrays[f"{plane}/foreground"][i] | ~np.bool_(info["cut_out"][j])
            images[f"{plane}/made/{name}"] = png_uri(display(np.where(inside, output, low)), low, high)
            if j in present:
                difference = np.where(inside, output - arrays[f"{plane}/images"][j].astype(np.float32), 0)
                half = (high - low) / 2
                images[f"{plane}/diff/{name}"] = png_uri(display(difference), -half, half, DIVERGING)
    return Viewer(
        rank=rank,
        subject=info["subject"],
        value=info["value"],
        pairs=[(modalities[i], modalities[j]) for i, j in shown],
        planes=planes,
        images=images,
        ranges={modalities[k]: f"{(high - low) / 2:.2g}" for k, (low, high) in windows.items()},
        left_out=len(pairs) - len(shown),
        absent=[name for k, name in enumerate(modalities) if k not in present],
    )


def window(slices: list[NDArray[Any]]) -> tuple[float, float]:
    """Intensities shown as black and white: 1st and 99.5th percentile over the three planes."""
    values = np.concatenate([part.ravel() for part in slices]).astype(np.float32)
    low, high = np.percentile(values, (1, 99.5))
    return float(low), float(high) if high > low else float(low) + 1.0


def display(image: NDArray[Any]) -> NDArray[Any]:
    """A RAS+ slice as rows and columns: up is superior or anterior, left is the patient's right or front."""
    step = -(-max(image.shape) // MOST_PIXELS)
    return image[::-step, ::-step].T
