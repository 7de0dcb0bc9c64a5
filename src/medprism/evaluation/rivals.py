"""Two rivals that a model of modality transfer has to beat, fitted on the training split alone.

They look at one voxel at a time, so whatever a model is better by, it has learned from more than one intensity.

- `identity`: the source itself through the best affine map a·x + b, by least squares.
- `lookup`: the mean target intensity given the source intensity, in 256 quantile bins, linear in between. No function
  of the source intensity has a smaller squared error (up to the bins).

Both are fitted for each ordered pair of modalities, on all voxels of the source's foreground of all training subjects
that have both. Outside the source's foreground they write the mean that the target
had there in training, so that scores over the whole volume are fair too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medprism.data.cache import Entry

Rival = Literal["identity", "lookup"]
RIVALS: tuple[Rival, ...] = get_args(Rival)

BINS = 256
_FINE = 4096  # bins of the running histogram, from which the quantile bins are merged


@dataclass(frozen=True)
class Curve:
    """What is written for one target given one source.

    Attributes:
        slope: of `identity`.
        intercept: of `identity`.
        centres: (bins,) increasing, mean source intensity in each quantile bin of `lookup`.
        means: (bins,) mean target intensity there.
        background: mean target intensity outside the source's foreground.
    """

    slope: float
    intercept: float
    centres: NDArray[np.float64]
    means: NDArray[np.float64]
    background: float

    def __call__(self, rival: Rival, source: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The target (X, Y, Z) for a source and its foreground (X, Y, Z)."""
        target = np.full(source.shape, self.background, dtype=np.float32)
        x = source[foreground]
        identity = rival == "identity"
        target[foreground] = self.slope * x + self.intercept if identity else np.interp(x, self.centres, self.means)
        return target


class Rivals:
    """Curves of every ordered pair of modalities that the training split has together.

    Attributes:
        curves: by (source, target) index; a pair that no training subject has is not in it.
        subjects: by (source, target) index, how many training subjects it was fitted on.
    """

    def __init__(self, curves: dict[tuple[int, int], Curve], subjects: dict[tuple[int, int], int]) -> None:
        self.curves, self.subjects = curves, subjects

    @classmethod
    def fit(cls, entries: Iterable[Entry]) -> Rivals:
        """Fit all pairs in one pass over the training subjects, one of them in memory at a time.

        Args:
            entries: the training split.
        """
        return cls.of(map(sums_of, entries))

    @classmethod
    def of(cls, parts: Iterable[Mapping[tuple[int, int], Sums]]) -> Rivals:
        """Fit all pairs from what `sums_of` gives of each training subject; their order decides the last bit."""
        sums: dict[tuple[int, int], Sums] = {}
        for part in parts:
            for pair, own in part.items():
                sums.setdefault(pair, Sums()).add(own)
        fitted = {pair: total for pair, total in sums.items() if total.inside}
        return cls(
            {pair: total.curve() for pair, total in fitted.items()},
            {pair: total.subjects for pair, total in fitted.items()},
        )

    def predict(
        self,
        rival: Rival,
        images: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        given: Sequence[int],
        target: int,
    ) -> NDArray[np.float32] | None:
        """One target, given one or more sources (of several: the mean of what each gives).

        Args:
            rival: which.
            images: (M, X, Y, Z); only the channels in `given` are read.
            foreground: (M, X, Y, Z); likewise.
            given: indices of the sources.
            target: index of the target.

        Returns:
            (X, Y, Z), or None if none of the pairs could be fitted.
        """
        known = [i for i in given if (i, target) in self.curves]
        if not known:
            return None
        total = sum(self.curves[i, target](rival, images[i], foreground[i]) for i in known)
        return np.asarray(total / len(known), dtype=np.float32)

    def background(self, given: Sequence[int], target: int) -> float | None:
        """Mean target intensity outside the sources' foregrounds in training, or None if none of the pairs is known."""
        known = [self.curves[i, target].background for i in given if (i, target) in self.curves]
        return sum(known) / len(known) if known else None


def sums_of(entry: Entry) -> dict[tuple[int, int], Sums]:
    """What one subject adds to each ordered pair of modalities that it has."""
    images, foreground = entry.images(), entry.foreground()
    here = np.flatnonzero(entry.present).tolist()
    return {(i, j): Sums.of(images[i], images[j], foreground[i]) for i in here for j in here}


class Sums:
    """Running sums of one (source, target) pair; memory does not grow with subjects.

    The histogram is over the arcsinh of the source intensity, which has no bounds to be told and is finest near zero.
    """

    def __init__(self) -> None:
        self.subjects = self.inside = self.outside = 0
        self.moments = np.zeros(4)  # Σx, Σy, Σx², Σxy
        self.background = 0.0
        self.fine = np.zeros((3, _FINE))  # n, Σx, Σy

    @classmethod
    def of(cls, source: NDArray[np.float32], target: NDArray[np.float32], foreground: NDArray[np.bool_]) -> Sums:
        """Those of one subject: scans and the source's foreground, (X, Y, Z) each."""
        self = cls()
        x, y = source[foreground].astype(np.float64), target[foreground].astype(np.float64)
        self.subjects = 1
        self.inside = x.size
        self.outside = source.size - x.size
        self.background = float(target[~foreground].sum(dtype=np.float64))
        self.moments += x.sum(), y.sum(), x @ x, x @ y
        bins = ((np.arcsinh(x) / _REACH + 1) * (_FINE / 2)).astype(np.int64).clip(0, _FINE - 1)
        for row, weights in zip(self.fine, (None, x, y), strict=True):
            row += np.bincount(bins, weights, minlength=_FINE)
        return self

    def add(self, other: Sums) -> None:
        """Go on with another subject."""
        self.subjects += other.subjects
        self.inside += other.inside
        self.outside += other.outside
        self.background += other.background
        self.moments += other.moments
        self.fine += other.fine

    def curve(self) -> Curve:
        """What the sums give."""
        sx, sy, sxx, sxy = self.moments / self.inside
        variance = sxx - sx * sx
        slope = (sxy - sx * sy) / variance if variance > 1e-12 * max(sxx, 1e-12) else 0.0
        full = self.fine[:, self.fine[0] > 0]
        middle = np.cumsum(full[0]) - full[0] / 2
        bins = (middle * (BINS / self.inside)).astype(np.int64)
        merged = np.stack([np.bincount(bins, row, minlength=BINS) for row in full])
        n, x, y = merged[:, merged[0] > 0]
        background = self.background / self.outside if self.outside else sy
        return Curve(float(slope), float(sy - slope * sx), x / n, y / n, float(background))


_REACH = float(np.arcsinh(100.0))  # intensities beyond ±100 share the outermost bin; caches clip far below
