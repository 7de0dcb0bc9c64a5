import numpy as np
import pytest

from medprism.evaluation.statistics import Bootstrap


def test_summary_of_known_values():
    summary = Bootstrap(["a", "b", "c", "d"]).summary([1.0, 2.0, 3.0, float("nan")])
    assert (summary.mean, summary.std, summary.n, summary.n_empty) == (2.0, 1.0, 3, 1)
    low, high = summary.ci95
    assert 1.0 <= low < 2.0 < high <= 3.0


def test_one_person_has_no_interval():
    summary = Bootstrap(["a", "a"]).summary([1.0, 2.0])
    assert summary.mean == 1.5
    assert summary.ci95 is None
    nothing = Bootstrap(["a"]).summary([float("nan")])
    assert (nothing.mean, nothing.std, nothing.ci95, nothing.n, nothing.n_empty) == (None, None, None, 0, 1)


def test_interval_of_the_mean_is_that_of_normal_theory():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = Bootstrap([str(k) for k in range(400)]).interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_coverage():
    rng, hits = np.random.default_rng(1), 0
    bootstrap = Bootstrap([str(k) for k in range(30)], resamples=500)
    for _ in range(400):
        low, high = bootstrap.interval(rng.normal(size=30))
        hits += low <= 0 <= high
    assert 0.90 < hits / 400 < 0.97


def test_visits_of_one_person_are_not_independent():
    rng = np.random.default_rng(2)
    values = rng.normal(size=40).repeat(4)  # four equal visits each
    persons = [str(k // 4) for k in range(160)]
    by_person = np.subtract(*Bootstrap(persons).interval(values)[::-1])
    by_visit = np.subtract(*Bootstrap([str(k) for k in range(160)]).interval(values)[::-1])
    assert by_person == pytest.approx(2 * by_visit, rel=0.15)


def test_seeded():
    values, persons = np.arange(10.0), [str(k) for k in range(10)]
    assert Bootstrap(persons, seed=1).interval(values) == Bootstrap(persons, seed=1).interval(values)
    assert Bootstrap(persons, seed=1).interval(values) != Bootstrap(persons, seed=2).interval(values)
