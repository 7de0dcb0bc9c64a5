"""Means with bootstrap intervals, resampled by person.

Two visits of one person are not two independent observations, so persons are drawn, each with all of its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medprism.data.randomness import rng

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """A mean over subjects.

    Attributes:
        mean: of the values that exist; None if none does.
        std: sample standard deviation (n − 1); None of fewer than 2 values.
        ci95: 95 % bootstrap interval of the mean; None of fewer than 2 persons.
        n: values that exist.
        n_empty: values that do not (an empty region, a truth without range).
    """

    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    n: int
    n_empty: int


class Bootstrap:
    """Percentile bootstrap over persons (Efron and Tibshirani 1993, chapter 13).

    The draws depend on the seed and the set of persons alone, so all metrics and methods are resampled alike. With few
    persons (say under 15) percentile intervals are somewhat too narrow.

    Args:
        persons: the person of each value.
        seed: seed of the draws.
        resamples: how many.
    """

    def __init__(self, persons: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        self.names, self.rows = np.unique(np.asarray(persons, dtype=str), return_inverse=True)
        count = len(self.names)
        draw = rng(seed, "bootstrap", *self.names.tolist())
        # (resamples, persons): how often each person was drawn
        self.weights = draw.multinomial(count, np.full(count, 1 / count), size=resamples) if count else np.empty((0, 0))

    def interval(self, values: NDArray[np.float64]) -> tuple[float, float] | None:
        """The interval of the mean of (n,) values, NaN ones left out; None if fewer than 2 persons have one."""
        exist = np.isfinite(values)
        size = len(self.names)
        counts = np.bincount(self.rows[exist], minlength=size)
        if np.count_nonzero(counts) < 2:
            return None
        sums = np.bincount(self.rows[exist], values[exist], minlength=size)
        drawn = self.weights @ counts
        means = (self.weights @ sums)[drawn > 0] / drawn[drawn > 0]
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def summary(self, values: Sequence[float] | NDArray[np.float64]) -> Summary:
        """Mean, spread and interval of one value per entry of `persons`, NaN where there is none.

        A paired comparison of two methods is the summary of their differences.
        """
        array = np.asarray(values, dtype=np.float64)
        exist = array[np.isfinite(array)]
        return Summary(
            mean=float(exist.mean()) if exist.size else None,
            std=float(exist.std(ddof=1)) if exist.size > 1 else None,
            ci95=self.interval(array),
            n=int(exist.size),
            n_empty=int(array.size - exist.size),
        )

    def mean_of_means(self, values: NDArray[np.float64]) -> Summary:
        """The mean over columns of the columns' means, each over the persons that have it.

        So a subject that was scored under few settings does not tip the mean over settings towards those.

        Args:
            values: (n, columns), a row per entry of `persons`, NaN where there is none.

        Returns:
            The mean with its interval; `std` is over the columns' means, `n` counts rows with any value.
        """
        exist = np.isfinite(values)
        columns = values[:, exist.any(axis=0)]
        exist = exist[:, exist.any(axis=0)]
        known = exist.any(axis=1)
        if not known.any():
            return Summary(None, None, None, 0, len(values))
        means = np.nanmean(columns, axis=0)
        return Summary(
            mean=float(means.mean()),
            std=float(means.std(ddof=1)) if means.size > 1 else None,
            ci95=self._interval_of_means(columns, exist),
            n=int(known.sum()),
            n_empty=int((~known).sum()),
        )

    def _interval_of_means(self, values: NDArray[np.float64], exist: NDArray[np.bool_]) -> tuple[float, float] | None:
        persons = np.eye(len(self.names))[self.rows]  # (n, persons)
        counts, sums = persons.T @ exist, persons.T @ np.where(exist, values, 0)
        if np.count_nonzero(counts.any(axis=1)) < 2:
            return None
        drawn = self.weights @ counts  # (resamples, columns)
        means = np.divide(self.weights @ sums, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
        means = means[np.isfinite(means).any(axis=1)]  # a draw may miss everybody who has a column
        low, high = np.quantile(np.nanmean(means, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)
