import numpy as np
import pytest
from scipy.stats import ortho_group

from medprism.evaluation.representation.distances import equivariance_error, mean_of, modality_distance, modality_gap

PERSONS, CROPS, CHANNELS = 5, 4, 6
PERSON = np.repeat(np.arange(PERSONS), CROPS)
PLACE = np.tile(np.arange(CROPS), PERSONS)
ONCE = np.ones((1, PERSONS))


def vectors(seed=0):
    return np.random.default_rng(seed).normal(size=(PERSONS * CROPS, CHANNELS))


def measures(a, b):
    return {
        "gap": modality_gap(a, b, PERSON, PERSONS),
        "distance": modality_distance(a, b, PLACE, PERSON, PERSONS),
    }


def test_gap_of_a_shift_is_the_shift_in_units_of_the_spread():
    a, shift = vectors(), np.array([3.0, 4, 0, 0, 0, 0])
    spread = np.sqrt(((a - a.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert measures(a, a + shift)["gap"](ONCE)[0] == pytest.approx(5 / spread)
    assert measures(a, a)["gap"](ONCE)[0] == 0


def test_distance_is_the_ratio_of_modality_to_person():
    person, modality, place = 2.0, 3.0, 100.0
    code = np.eye(PERSONS + 2 + CROPS)
    base = person * code[PERSON] + place * code[PERSONS + 2 + PLACE]
    a, b = base + modality * code[PERSONS], base + modality * code[PERSONS + 1]
    assert measures(a, b)["distance"](ONCE)[0] == pytest.approx(modality / person)  # the place is no part of it
    assert measures(a, a)["distance"](ONCE)[0] == 0


@pytest.mark.parametrize("name", ["gap", "distance"])
def test_neither_shift_nor_turn_nor_scale_nor_order_of_modalities_changes_a_measure(name):
    a, b = vectors(1), vectors(2) + 1
    turn = ortho_group.rvs(CHANNELS, random_state=0)
    expected = measures(a, b)[name](ONCE)[0]
    assert expected > 0.1
    assert measures(7 * a @ turn + 1e3, 7 * b @ turn + 1e3)[name](ONCE)[0] == pytest.approx(expected, rel=1e-9)
    assert measures(b, a)[name](ONCE)[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["gap", "distance"])
def test_a_person_drawn_twice_counts_as_two_rows(name):
    a, b = vectors(1), vectors(2) + 1
    rows = np.concatenate([np.flatnonzero(p == PERSON) for p in (0, 1, 1, 3)])
    of = {
        "gap": modality_gap(a[rows], b[rows], PERSON[rows], PERSONS),
        "distance": modality_distance(a[rows], b[rows], PLACE[rows], PERSON[rows], PERSONS),
    }[name]
    there = np.array([[1.0, 1, 1, 1, 0]])  # person 1 has twice the rows, persons 2 and 4 none
    drawn = measures(a, b)[name](np.array([[1.0, 2, 0, 1, 0], [1, 1, 1, 1, 1]]))
    assert drawn[0] == pytest.approx(of(there)[0])
    assert drawn[1] == pytest.approx(measures(a, b)[name](ONCE)[0])


def test_a_collapsed_representation_has_no_value():
    flat = np.ones((PERSONS * CROPS, CHANNELS))
    for measure in measures(flat, flat).values():
        assert np.isnan(measure(ONCE)[0])
    zero = np.zeros(len(flat))
    assert np.isnan(equivariance_error(zero, (flat**2).sum(axis=1), flat, PERSON, PERSONS)(ONCE)[0])
    alone = np.array([[1.0, 0, 0, 0, 0]])  # nobody to compare with
    assert np.isnan(measures(vectors(), vectors())["distance"](alone)[0])


def test_equivariance_error_is_one_of_unrelated_maps_and_none_of_equal_ones():
    rng = np.random.default_rng(0)
    maps, others = rng.normal(3, 2, size=(2, len(PERSON), 50, CHANNELS))
    power, means = (maps**2).sum(axis=2).mean(axis=1), maps.mean(axis=1)
    error = ((maps - others) ** 2).sum(axis=2).mean(axis=1)
    assert equivariance_error(error, power, means, PERSON, PERSONS)(ONCE)[0] == pytest.approx(1, abs=0.02)
    assert equivariance_error(0 * error, power, means, PERSON, PERSONS)(ONCE)[0] == 0
    variance = ((maps - maps.mean(axis=(0, 1))) ** 2).sum(axis=2).mean()
    expected = np.sqrt(error.mean() / (2 * variance))
    assert equivariance_error(error, power, means, PERSON, PERSONS)(ONCE)[0] == pytest.approx(expected)


def test_mean_leaves_out_what_has_no_value():
    def of(*values):
        return lambda weights: np.array(values, dtype=float)

    np.testing.assert_array_equal(mean_of([of(1, np.nan, np.nan), of(3, 5, np.nan)])(ONCE), [2, 5, np.nan])
