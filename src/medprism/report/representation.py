"""The representation of every scan as a point in the plane (t-SNE), by person and by modality."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medprism.evaluation.representation import REGIONS
from medprism.report.style import category

FEWEST = 6  # points; with fewer a neighbourhood means nothing
EXACT = 400  # most points that are laid out without approximation
SIZE = 100.0


@dataclass(frozen=True)
class Point:
    """One scan.

    Attributes:
        x: 0 to `SIZE`.
        y: 0 to `SIZE`.
        title: whose, and which.
        by_person: colour.
        by_modality: colour.
    """

    x: float
    y: float
    title: str
    by_person: str
    by_modality: str


@dataclass(frozen=True)
class Map:
    """All scans of the scored subjects.

    Attributes:
        points: one for each scan.
        spokes: lines from each person's scans to their middle, as (x1, y1, x2, y2, colour).
        modalities: (name, colour), for the legend.
        persons: how many.
        perplexity: of t-SNE.
    """

    points: list[Point]
    spokes: list[tuple[float, float, float, float, str]]
    modalities: list[tuple[str, str]]
    persons: int
    perplexity: float


def maps(path: Path, order: list[str], *, seed: int = 0) -> dict[str, Map]:
    """Lay out representation.npz by t-SNE (van der Maaten and Hinton 2008), with a seed.

    Args:
        path: the file; of `evaluate`, one vector a scan, or of `evaluate --representation`, vectors before and after
            the prior of several crops a scan, whose mean is taken.
        order: modalities, for their colours.
        seed: of t-SNE.

    Returns:
        What is shown -> its map; empty with fewer than `FEWEST` scans.
    """
    with np.load(path, allow_pickle=False) as stored:
        labels = np.stack([stored[key] for key in ("subject", "person", "modality")], axis=1)
        named = {
            REGIONS[-1] if key == "vectors" else key: stored[key] for key in ("vectors", *REGIONS) if key in stored
        }
    scans, scan = np.unique(labels, axis=0, return_inverse=True)
    if len(scans) < FEWEST:
        return {}
    made = {}
    for name, vectors in named.items():
        means = np.zeros((len(scans), vectors.shape[1]))
        np.add.at(means, scan.reshape(-1), vectors)
        made[name] = _map(means / np.bincount(scan.reshape(-1))[:, None], scans.T, order, seed)
    return made


def _map(vectors: NDArray[np.float64], labels: NDArray[np.str_], order: list[str], seed: int) -> Map:
    """The map of vectors (N, C) of the scans whose subjects, persons and modalities are (3, N)."""
    subject, person, modality = (column.tolist() for column in labels)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    places = _tsne(vectors, perplexity, seed)
    persons = sorted(set(person))
    colour = {name: category(number) for number, name in enumerate(persons)}
    points = [
        Point(round(x, 2), round(y, 2), f"{s} · {m}", colour[p], category(order.index(m)))
        for (x, y), s, p, m in zip(places.tolist(), subject, person, modality, strict=True)
    ]
    own: dict[str, list[Point]] = defaultdict(list)
    for point, name in zip(points, person, strict=True):
        own[name].append(point)
    spokes = []
    for name, scans in own.items():
        x, y = (round(float(np.mean(values)), 2) for values in ([p.x for p in scans], [p.y for p in scans]))
        spokes += [(x, y, point.x, point.y, colour[name]) for point in scans if len(scans) > 1]
    present = set(modality)
    legend = [(name, category(number)) for number, name in enumerate(order) if name in present]
    return Map(points, spokes, legend, len(persons), perplexity)


def _tsne(vectors: NDArray[np.float64], perplexity: float, seed: int) -> NDArray[np.float64]:
    """(N, 2) places within a square with a margin, aspect kept."""
    from sklearn.manifold import TSNE  # a second to import

    spread = vectors.std(axis=0)
    scaled = (vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1)
    # The approximate method waits on threads far longer than it works where there are few points.
    method = "exact" if len(vectors) <= EXACT else "barnes_hut"
    layout = TSNE(perplexity=perplexity, init="random", random_state=seed, method=method)
    places = layout.fit_transform(scaled.astype(np.float32))
    places = places - places.min(axis=0)
    size = places.max(axis=0)
    within: NDArray[np.float64] = 4 + (places + (size.max() - size) / 2) / max(float(size.max()), 1e-9) * (SIZE - 8)
    return within
