import numpy as np
import pytest

from medprism.evaluation.representation import MEAN
from medprism.evaluation.representation.features import Features
from medprism.evaluation.representation.measure import measure

NAMES = ("t1n", "t1c", "t2w")
PERSONS, PLACES, TURNS = 6, 4, 4


def features(vector, *, present=None, subjects=None):
    """Features whose x_h is `vector(person, place, modality, turn)` and whose z is noise."""
    rng = np.random.default_rng(0)
    rows = [
        (person, place, modality)
        for person in range(PERSONS)
        for place in range(PLACES)
        for modality in range(len(NAMES))
        if present is None or present(person, modality)
    ]
    x_h = np.array([[vector(*row, turn) for turn in range(TURNS)] for row in rows], dtype=float)
    vectors = np.stack([rng.normal(size=x_h.shape), x_h], axis=1)
    person, place, modality = (np.array(column) for column in zip(*rows, strict=True))
    subject = np.array([f"s{k}" for k in person]) if subjects is None else np.array(subjects)[person]
    ones = np.ones((len(rows), 2))
    return Features(
        subject, np.array([f"p{k}" for k in person]), modality, person * PLACES + place, place, vectors, ones, 9 * ones
    )


def code(size, *numbers):
    out = np.zeros(size)
    out[list(numbers)] = 1
    return out


def personal(person, place, modality, turn):
    return np.concatenate([code(PERSONS, person), code(PLACES, place), 3 * code(TURNS, turn)])


def scanner(person, place, modality, turn):
    return np.concatenate([0.01 * code(PERSONS, person), 5 * code(len(NAMES), modality)])


def mean(rows, metric, region="x_h", method="model"):
    (row,) = [r for r in rows if (r.metric, r.region, r.method, r.group) == (metric, region, method, MEAN)]
    return row


def test_a_personal_representation_is_at_its_best():
    rows, _ = measure(features(personal), NAMES, subjects=PERSONS)
    for metric, best in {
        "modality_gap": 0,
        "modality_distance": 0,
        "retrieval_top1": 1,
        "retrieval_mrr": 1,
        "person_top1": 1,
        "person_mrr": 1,
        "rotation_accuracy": 1,
    }.items():
        assert mean(rows, metric).mean == pytest.approx(best), metric
    assert mean(rows, "modality_accuracy").mean == pytest.approx(1 / 3, abs=0.1)
    assert mean(rows, "person_top1", "z").mean == pytest.approx(1 / PERSONS, abs=0.15)


def test_a_representation_of_the_scanner_is_found_out():
    rows, _ = measure(features(scanner), NAMES, subjects=PERSONS)
    assert mean(rows, "modality_accuracy").mean == 1
    assert mean(rows, "modality_gap").mean > 100
    assert mean(rows, "modality_distance").mean > 100
    assert mean(rows, "rotation_accuracy").mean <= 0.25


def test_chance_is_told_once_and_is_what_guessing_gives():
    rows, _ = measure(features(personal), NAMES, subjects=PERSONS)
    assert mean(rows, "retrieval_top1", method="chance").mean == pytest.approx(1 / (PERSONS * PLACES))
    assert mean(rows, "person_top1", method="chance").mean == pytest.approx(1 / PERSONS)
    assert mean(rows, "modality_accuracy", method="chance").mean == pytest.approx(1 / 3)
    assert mean(rows, "rotation_accuracy", method="chance").mean == pytest.approx(1 / 4)
    rivals, _ = measure(features(personal), NAMES, method="untrained", subjects=PERSONS)
    assert {row.method for row in rivals} == {"untrained"}


def test_counts_with_holes_say_who_took_part():
    def present(person, modality):  # t2w of one person only, t1c of all but one
        return {0: True, 1: person > 0, 2: person == 3}[modality]

    rows, _ = measure(features(personal, present=present), NAMES, subjects=PERSONS + 1)
    pairs = {(r.given[0], r.target) for r in rows if r.group == "pair"}
    assert pairs == {("t1n", "t1c"), ("t1c", "t1n")}
    row = mean(rows, "person_top1")
    assert (row.n, row.n_empty, row.mean) == (PERSONS - 1, 2, 1)
    row = mean(rows, "modality_gap")
    assert (row.n, row.n_empty) == (PERSONS - 1, 2)
    assert mean(rows, "modality_accuracy", method="chance").mean == pytest.approx(6 / 12)
    assert mean(rows, "rotation_accuracy").n == PERSONS


def test_one_modality_has_no_gap_but_turns():
    rows, _ = measure(features(personal, present=lambda person, modality: modality == 1), NAMES, subjects=PERSONS)
    assert {row.metric for row in rows} == {"rotation_accuracy", "equivariance_error"}


def test_rows_are_means_of_the_scores_of_subjects():
    noisy = features(lambda *key: personal(*key) + np.random.default_rng(key).normal(scale=0.6, size=14))
    rows, scores = measure(noisy, NAMES, subjects=PERSONS)
    for metric in ("person_top1", "retrieval_mrr"):
        row = mean(rows, metric)
        values = [s.value for s in scores if (s.metric, s.region) == (metric, "x_h")]
        assert len(values) == PERSONS * 6
        assert 0 < row.mean < 1
        assert row.mean == pytest.approx(np.mean(values))
        assert row.ci95[0] < row.mean < row.ci95[1]


def test_two_visits_of_one_person_are_that_person():
    noisy = features(lambda *key: np.random.default_rng(key).normal(size=8))
    visits = Features(**{**vars(noisy), "person": np.where(noisy.person == "p5", "p4", noisy.person)})
    alone, _ = measure(noisy, NAMES, subjects=PERSONS)
    rows, _ = measure(visits, NAMES, subjects=PERSONS)
    assert mean(rows, "person_top1", method="chance").mean == pytest.approx((4 * 1 / 6 + 2 * 2 / 6) / 6)
    assert mean(rows, "person_top1").n == PERSONS
    assert mean(rows, "retrieval_top1").mean == mean(alone, "retrieval_top1").mean


def test_the_order_of_rows_changes_nothing():
    noisy = features(lambda *key: personal(*key) + np.random.default_rng(key).normal(scale=0.6, size=14))
    order = np.random.default_rng(1).permutation(len(noisy.subject))
    mixed = Features(**{name: column[order] for name, column in vars(noisy).items()})
    metrics = ("modality_gap", "modality_distance", "retrieval_top1", "person_mrr", "equivariance_error")
    one, other = (measure(each, NAMES, subjects=PERSONS)[0] for each in (noisy, mixed))
    for metric in metrics:
        assert mean(one, metric).mean == pytest.approx(mean(other, metric).mean), metric
        assert mean(one, metric).ci95 == pytest.approx(mean(other, metric).ci95), metric
