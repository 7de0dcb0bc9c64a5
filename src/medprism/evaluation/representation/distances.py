"""How far modalities lie apart, in numbers that stay the same when all vectors are shifted, turned or multiplied alike.

Each is a function of how often every person counts, so that the same lines give the estimate (everyone once) and its
bootstrap (as often as drawn).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights (R, P) of P persons in R draws to the R values of a measure; NaN where it is not defined."""


def modality_gap(a: Floats, b: Floats, person: NDArray[np.int64], persons: int) -> Statistic:
    """Distance of two modalities' centres in units of the spread within a modality.

    gap = |μₐ − μ_b| / √((sₐ² + s_b²) / 2) with μ the mean of a modality's vectors and s² their mean squared distance
    to it, both over the crops that show both modalities. 0: the modalities lie upon each other. 1: their centres are
    as far apart as a crop is from its centre.

    Args:
        a: (K, C) vectors of K crops in the one modality.
        b: (K, C) of the same crops in the other.
        person: (K,) whose crop, 0 … P − 1.
        persons: P.
    """
    middle = np.concatenate([a, b]).mean(axis=0)  # taken off first, so that squares do not cancel
    number = _by_person(np.ones(len(a)), person, persons)
    sums = [_by_person(side - middle, person, persons) for side in (a, b)]
    squares = [_by_person(((side - middle) ** 2).sum(axis=1), person, persons) for side in (a, b)]

    def gap(weights: Floats) -> Floats:
        count = weights @ number
        centres = [_ratio(weights @ each, count[:, None]) for each in sums]
        spreads = [_ratio(weights @ q, count) - (c**2).sum(axis=1) for q, c in zip(squares, centres, strict=True)]
        apart = np.sqrt(((centres[0] - centres[1]) ** 2).sum(axis=1))
        return _ratio(apart, np.sqrt(np.maximum(sum(spreads), 0) / 2))

    return gap


def modality_distance(
    a: Floats, b: Floats, place: NDArray[np.int64], person: NDArray[np.int64], persons: int
) -> Statistic:
    """How far two modalities of one crop lie apart, in units of how far different persons do.

    mean |vₐ − v_b| over crops / mean |v − w| over pairs of crops of different persons at the same place, both in the
    same modality, averaged over the two modalities. 0: a crop has one vector, whatever the scanner. 1: changing the
    modality moves it as far as changing the person.

    Args:
        a: (K, C) vectors of K crops in the one modality.
        b: (K, C) of the same crops in the other.
        place: (K,) where in the body a crop lies.
        person: (K,) whose crop, 0 … P − 1.
        persons: P.
    """
    counted = (place[:, None] == place[None]) & (person[:, None] != person[None])
    apart = (cdist(a, a) + cdist(b, b)) / 2 * counted
    number = _by_person(np.ones(len(a)), person, persons)
    own = _by_person(np.sqrt(((a - b) ** 2).sum(axis=1)), person, persons)
    between, pairs = (
        _by_person(_by_person(each, person, persons).T, person, persons) for each in (apart, counted.astype(np.float64))
    )

    def distance(weights: Floats) -> Floats:
        others = _ratio(((weights @ between) * weights).sum(axis=1), ((weights @ pairs) * weights).sum(axis=1))
        return _ratio(_ratio(weights @ own, weights @ number), others)

    return distance


def equivariance_error(
    error: Floats, power: Floats, vectors: Floats, person: NDArray[np.int64], persons: int
) -> Statistic:
    """How far the map of a turned crop is from the turned map of the crop, in units of how far any two voxels are.

    √(mean |f(Rx) − R f(x)|² / 2V) over crops, voxels and the three turns R that are not the identity, with V the
    variance of the maps' voxels, summed over channels: two voxels taken at random are 2V apart in the mean square.
    0: turning the scan turns the map and nothing else. 1: the turned scan gives another map altogether.

    Args:
        error: (K,) mean over voxels and turns of |f(Rx) − R f(x)|².
        power: (K,) mean over voxels of |f(x)|².
        vectors: (K, C) mean over voxels of f(x).
        person: (K,) whose crop.
        persons: P.
    """
    number, off, squares = (_by_person(each, person, persons) for each in (np.ones(len(error)), error, power))
    sums = _by_person(vectors, person, persons)

    def measure(weights: Floats) -> Floats:
        count = weights @ number
        variance = _ratio(weights @ squares, count) - (_ratio(weights @ sums, count[:, None]) ** 2).sum(axis=1)
        return np.sqrt(_ratio(_ratio(weights @ off, count), 2 * np.maximum(variance, 0)))

    return measure


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several measures in every draw, of those that are defined in it."""

    def mean(weights: Floats) -> Floats:
        values = np.stack([each(weights) for each in statistics])
        there = np.isfinite(values)
        return _ratio(np.where(there, values, 0).sum(axis=0), there.sum(axis=0).astype(np.float64))

    return mean


def _by_person(values: Floats, person: NDArray[np.int64], persons: int) -> Floats:
    """Sums of (K, ...) over each person's rows: (P, ...)."""
    sums = np.zeros((persons, *values.shape[1:]))
    np.add.at(sums, person, values)
    return sums


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
