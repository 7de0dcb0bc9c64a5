"""From features to the rows of the table: every measure, for z and for x_h, for each pair of modalities and in mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medprism.evaluation.representation import MEAN, PROTOCOL, REGIONS
from medprism.evaluation.representation.distances import (
    Statistic,
    equivariance_error,
    mean_of,
    modality_distance,
    modality_gap,
)
from medprism.evaluation.representation.features import Features
from medprism.evaluation.representation.probes import best_guess, hits
from medprism.evaluation.representation.retrieval import Found, retrieve
from medprism.evaluation.results import Row, Score
from medprism.evaluation.statistics import LEVEL, Bootstrap, Summary

Of = tuple[tuple[str, ...], str | None]  # given, target


@dataclass
class Sheet:
    """Rows and scores of one method, as they are found.

    Args:
        features: of the method.
        modalities: the cohort's, in order.
        method: `model`, or a rival.
        subjects: how many were to be measured.
        seed: of the bootstrap.
    """

    features: Features
    modalities: tuple[str, ...]
    method: str
    subjects: int
    seed: int
    rows: list[Row] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)

    def __post_init__(self) -> None:
        names, self.person = np.unique(self.features.person, return_inverse=True)
        self.bootstrap = Bootstrap(names.tolist(), seed=self.seed)
        self.persons = len(names)
        self.person_of = dict(zip(self.features.subject.tolist(), self.features.person.tolist(), strict=True))

    def statistic(
        self, metric: str, region: str, group: str, of: Of, value: Statistic, rows: NDArray[np.int64]
    ) -> None:
        """Add a measure that is one number of all persons together, found on some rows of the features."""
        estimate = float(value(np.ones((1, self.persons)))[0])
        drawn = value(self.bootstrap.weights.astype(np.float64))
        drawn = drawn[np.isfinite(drawn)]
        interval = None
        if self.persons > 1 and np.isfinite(estimate):
            low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
            interval = (low, high)
        n = len(np.unique(self.features.subject[rows])) if np.isfinite(estimate) else 0
        mean = estimate if n else None
        self._add(metric, region, group, of, self.method, Summary(mean, None, interval, n, self.subjects - n))

    def per_subject(
        self, metric: str, region: str, group: str, of: Of, values: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> None:
        """Add a measure that every subject has: the mean of the values (Q,) at its rows (Q,) of the features."""
        names, place = np.unique(self.features.subject[rows], return_inverse=True)
        means = np.bincount(place, values) / np.bincount(place)
        persons = [self.person_of[name] for name in names.tolist()]
        summary = Bootstrap(persons, seed=self.seed).summary(means)
        self._add(
            metric, region, group, of, self.method, Summary(**{**vars(summary), "n_empty": self.subjects - summary.n})
        )
        if of[0]:  # of each subject only what the means are made of
            self.scores += [
                Score(PROTOCOL, self.method, *of, region, metric, value, name, person)
                for value, name, person in zip(means.tolist(), names.tolist(), persons, strict=True)
            ]

    def chance(
        self, metric: str, region: str, group: str, of: Of, values: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> None:
        """Add what guessing gives at the same rows."""
        n = len(np.unique(self.features.subject[rows]))
        summary = Summary(float(values.mean()), None, None, n, self.subjects - n)
        self._add(metric, region, group, of, "chance", summary)

    def _add(self, metric: str, region: str, group: str, of: Of, method: str, summary: Summary) -> None:
        self.rows.append(Row(PROTOCOL, group, method, *of, region, metric, **vars(summary)))


def measure(
    features: Features, modalities: Sequence[str], *, method: str = "model", subjects: int, seed: int = 0
) -> tuple[list[Row], list[Score]]:
    """All measures of one method.

    Args:
        features: of all crops, of at least two persons.
        modalities: the cohort's, in order.
        method: `model`, beside which rows of `chance` are made, or a rival.
        subjects: how many were to be measured, those without any crop included.
        seed: of the bootstrap.

    Returns:
        The rows, and the values of single subjects that some of them are means of.
    """
    sheet = Sheet(features, tuple(modalities), method, subjects, seed)
    for number, region in enumerate(REGIONS):
        straight = features.vectors[:, number, 0]
        _pairs(sheet, region, straight)
        if len(np.unique(features.modality)) > 1:
            every = np.arange(len(straight))
            _probe(sheet, "modality_accuracy", region, straight, features.modality, every)
        turns = features.vectors.shape[2]
        if turns > 1:
            turned = features.vectors[:, number].reshape(-1, straight.shape[1])
            labels = np.tile(np.arange(turns), len(straight))
            _probe(sheet, "rotation_accuracy", region, turned, labels, np.repeat(np.arange(len(straight)), turns))
            _equivariance(sheet, region, number, straight)
    return sheet.rows, sheet.scores


def _pairs(sheet: Sheet, region: str, vectors: NDArray[np.float64]) -> None:
    """Gap, distance and retrieval for each two modalities that crops of two persons or more show."""
    features, names = sheet.features, sheet.modalities
    statistics: dict[str, list[Statistic]] = {"modality_gap": [], "modality_distance": []}
    retrieved: dict[str, list[tuple[Found, NDArray[np.int64]]]] = {"retrieval": [], "person": []}
    seen: list[NDArray[np.int64]] = []
    for first, second in combinations(range(len(names)), 2):
        one, other = _both(features, first, second)
        if len(np.unique(sheet.person[one])) < 2:
            continue
        seen.append(one)
        a, b, whose = vectors[one], vectors[other], sheet.person[one]
        values = {
            "modality_gap": modality_gap(a, b, whose, sheet.persons),
            "modality_distance": modality_distance(a, b, features.place[one], whose, sheet.persons),
        }
        for metric, value in values.items():
            statistics[metric].append(value)
            sheet.statistic(metric, region, "pair", ((names[first],), names[second]), value, one)
        for here, there, given, target in ((one, other, first, second), (other, one, second, first)):
            for kind, (wanted, among) in _looked_for(features, here).items():
                found = retrieve(vectors[here], vectors[there], wanted, among)
                retrieved[kind].append((found, here))
                _found(sheet, kind, region, "pair", ((names[given],), names[target]), [(found, here)])
    if seen:
        rows = np.concatenate(seen)
        for metric, of_pairs in statistics.items():
            sheet.statistic(metric, region, MEAN, ((), None), mean_of(of_pairs), rows)
        for kind, results in retrieved.items():
            _found(sheet, kind, region, MEAN, ((), None), results)


def _both(features: Features, first: int, second: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the crops that show both modalities, in the one and in the other, in the same order."""
    own, theirs = (np.flatnonzero(features.modality == number) for number in (first, second))
    _, here, there = np.intersect1d(features.crop[own], features.crop[theirs], return_indices=True)
    return own[here], theirs[there]


def _looked_for(features: Features, rows: NDArray[np.int64]) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Who is looked for among whom, (Q, Q) each: the same crop among all; the same person among crops of one place."""
    person, place = features.person[rows], features.place[rows]
    same_place = place[:, None] == place[None]
    crop = np.eye(len(rows), dtype=np.bool_)
    return {
        "retrieval": (crop, np.ones_like(crop)),
        "person": ((person[:, None] == person[None]) & same_place, same_place),
    }


def _found(
    sheet: Sheet, kind: str, region: str, group: str, of: Of, results: Iterable[tuple[Found, NDArray[np.int64]]]
) -> None:
    results = list(results)
    rows = np.concatenate([here for _, here in results])
    for what in ("top1", "mrr"):
        values = np.concatenate([getattr(found, what) for found, _ in results])
        sheet.per_subject(f"{kind}_{what}", region, group, of, values, rows)
        if sheet.method == "model":
            guessed = np.concatenate([getattr(found, f"chance_{what}") for found, _ in results])
            sheet.chance(f"{kind}_{what}", region, group, of, guessed, rows)


def _probe(
    sheet: Sheet,
    metric: str,
    region: str,
    vectors: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """One classifier for the scans of all modalities; how often it is right, in all and in each."""
    right = hits(vectors, labels, sheet.features.person[rows])
    sheet.per_subject(metric, region, MEAN, ((), None), right, rows)
    for number, name in enumerate(sheet.modalities):
        own = sheet.features.modality[rows] == number
        if own.any():
            sheet.per_subject(metric, region, "modality", ((name,), None), right[own], rows[own])
    if sheet.method == "model":
        sheet.chance(metric, region, MEAN, ((), None), np.full(len(rows), best_guess(labels)), rows)


def _equivariance(sheet: Sheet, region: str, number: int, vectors: NDArray[np.float64]) -> None:
    features = sheet.features
    values = []
    for modality, name in enumerate(sheet.modalities):
        own = np.flatnonzero(features.modality == modality)
        if len(own):
            tables = (features.error[own, number], features.power[own, number], vectors[own])
            values.append(equivariance_error(*tables, sheet.person[own], sheet.persons))
            sheet.statistic("equivariance_error", region, "modality", ((name,), None), values[-1], own)
    sheet.statistic("equivariance_error", region, MEAN, ((), None), mean_of(values), np.arange(len(vectors)))
