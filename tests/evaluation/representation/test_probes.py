import numpy as np
import pytest

from medprism.evaluation.representation.probes import best_guess, hits

PERSONS, EACH = 10, 8
PERSON = np.repeat(np.arange(PERSONS), EACH)


def test_what_is_linear_is_found_in_persons_not_seen():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, len(PERSON))
    vectors = 6 * np.eye(3)[labels] + rng.normal(size=(len(PERSON), 3))
    assert hits(vectors, labels, PERSON).mean() > 0.9
    assert hits(rng.normal(size=vectors.shape), labels, PERSON).mean() == pytest.approx(1 / 3, abs=0.2)


def test_scale_of_single_channels_is_no_obstacle():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, len(PERSON))
    vectors = np.stack([1e-4 * (4 * labels + rng.normal(size=len(PERSON))), 1e4 * rng.normal(size=len(PERSON))], axis=1)
    assert hits(vectors, labels, PERSON).mean() > 0.9


def test_knowing_the_person_is_of_no_use():
    """A classifier that saw some scans of a person would know the label of the others."""
    rng = np.random.default_rng(0)
    labels = (np.arange(PERSONS) % 2)[PERSON]
    vectors = np.eye(PERSONS)[PERSON] + 0.01 * rng.normal(size=(len(PERSON), PERSONS))
    assert hits(vectors, labels, PERSON).mean() < 0.9


def test_classes_that_only_one_side_has():
    vectors, labels = np.random.default_rng(0).normal(size=(4, 2)), np.array([0, 0, 1, 1])
    assert hits(vectors, labels, np.array([0, 0, 1, 1])).tolist() == [0, 0, 0, 0]


def test_best_guess_is_the_largest_share():
    assert best_guess(np.array([0, 1, 1, 2])) == 0.5
