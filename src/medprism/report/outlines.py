"""Scans with the outlines of truth and output, in three planes, for the best, the median and the worst subject."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medprism.evaluation.slices import PLANES
from medprism.report.pictures import display, window
from medprism.report.style import png_uri

TRUTH = "truth"


@dataclass(frozen=True)
class Plane:
    """One plane: its name, width : height in the world, and columns and rows of its pictures."""

    name: str
    aspect: float
    columns: int
    rows: int


@dataclass(frozen=True)
class Outlines:
    """What the page needs to show one subject.

    Attributes:
        rank: best, median or worst.
        subject: name.
        value: what it was ranked by.
        scans: the modalities that it has, to be looked at.
        given: the subsets that were segmented, the largest first.
        regions: names.
        planes: three.
        images: picture by `<plane>/<modality>`.
        paths: SVG path by `<plane>/<region>/<subset>` and `<plane>/<region>/truth`.
    """

    rank: str
    subject: str
    value: float
    scans: list[str]
    given: list[str]
    regions: list[str]
    planes: list[Plane]
    images: dict[str, str]
    paths: dict[str, str]


def outlines(path: Path, modalities: list[str], regions: Mapping[str, list[int]]) -> tuple[list[Outlines], str]:
    """Everything to show of slices.npz, and what the subjects were ranked by."""
    with np.load(path, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
        arrays = {name: stored[name] for name in stored.files if name != "about"}
    made = []
    for rank, info in about["subjects"].items():
        own = {name.removeprefix(f"{rank}/"): array for name, array in arrays.items() if name.startswith(f"{rank}/")}
        made.append(_outlines(rank, info, own, modalities, regions))
    return made, about["score"]


def _outlines(
    rank: str,
    info: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    modalities: list[str],
    regions: Mapping[str, list[int]],
) -> Outlines:
    present = [k for k, here in enumerate(info["present"]) if here]
    start = f"{PLANES[0]}/labels/"
    given = [name.removeprefix(start) for name in arrays if name.startswith(start) and name != start + TRUTH]
    images: dict[str, str] = {}
    paths: dict[str, str] = {}
    planes = []
    windows = {k: window([arrays[f"{plane}/images"][k] for plane in PLANES]) for k in present}
    for plane, axes in zip(PLANES, ((0, 1), (0, 2), (1, 2)), strict=True):
        across, up = (info["spacing"][axis] for axis in axes)
        for k in present:
            inside = arrays[f"{plane}/foreground"][k] | ~np.bool_(info["cut_out"][k])
            image = np.where(inside, arrays[f"{plane}/images"][k], windows[k][0])
            images[f"{plane}/{modalities[k]}"] = png_uri(display(image), *windows[k])
        rows, columns = display(arrays[start.replace(PLANES[0], plane) + TRUTH]).shape
        planes.append(Plane(plane, round(columns * across / (rows * up), 4), columns, rows))
        for name in (TRUTH, *given):
            labels = display(arrays[f"{plane}/labels/{name}"])
            for region, values in regions.items():
                paths[f"{plane}/{region}/{name}"] = border(np.isin(labels, values))
    return Outlines(
        rank=rank,
        subject=info["subject"],
        value=info["value"],
        scans=[modalities[k] for k in present],
        given=given[::-1],
        regions=list(regions),
        planes=planes,
        images=images,
        paths=paths,
    )


def border(mask: NDArray[np.bool_]) -> str:
    """The edges between the pixels inside and outside a mask (rows, columns), as an SVG path in units of pixels."""
    padded = np.pad(mask, 1)
    parts = []
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (rows + 1, columns): edges along a row
    for row, start, length in _runs(across):
        parts.append(f"M{start} {row}h{length}")
    along = (padded[1:-1, 1:] != padded[1:-1, :-1]).T  # (columns + 1, rows): edges along a column
    for column, start, length in _runs(along):
        parts.append(f"M{column} {start}v{length}")
    return "".join(parts)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Runs of true values in each line, as (line, start, length)."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(steps == 1)
    _, end = np.nonzero(steps == -1)
    return list(zip(line.tolist(), start.tolist(), (end - start).tolist(), strict=True))
