import pytest

from medprism.data.cohort import Subject
from medprism.data.holes import make_holes
from medprism.errors import UserError

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
COMPLETE = [Subject(f"s{i}", f"s{i}", {m: f"s{i}/{m}" for m in MODALITIES}) for i in range(500)]


def scans(subjects):
    return {(s.subject, m) for s in subjects for m in s.images}


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.95])
def test_rate_is_met_and_nobody_is_emptied(rate):
    thinned = make_holes(COMPLETE, rate, seed=1)
    assert all(s.images for s in thinned)
    # a scan stays with probability 1 - rate, and one of four comes back when all would go
    expected = 4 * (1 - rate) + rate**4
    assert sum(len(s.images) for s in thinned) / len(COMPLETE) == pytest.approx(expected, abs=0.12)


def test_lower_rates_are_nested_in_higher_ones():
    assert scans(make_holes(COMPLETE, 0.3)) > scans(make_holes(COMPLETE, 0.5)) > scans(make_holes(COMPLETE, 0.9))


def test_draws_depend_on_no_order_and_no_other_subject():
    whole = {s.subject: s for s in make_holes(COMPLETE, 0.5, seed=4)}
    reordered = Subject("s7", "s7", {m: f"s7/{m}" for m in MODALITIES[::-1]})
    assert dict(make_holes([reordered], 0.5, seed=4)[0].images) == dict(whole["s7"].images)
    assert scans(make_holes(COMPLETE, 0.5, seed=4)) != scans(make_holes(COMPLETE, 0.5, seed=5))


def test_what_is_left_is_as_it_was():
    for before, after in zip(COMPLETE, make_holes(COMPLETE, 0.5), strict=True):
        assert dict(after.images).items() <= dict(before.images).items()
    assert make_holes(COMPLETE, 0.0) == tuple(COMPLETE)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 3])
def test_no_probability_is_refused(rate):
    with pytest.raises(UserError, match="missing rate"):
        make_holes(COMPLETE, rate)
