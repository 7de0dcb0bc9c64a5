from types import SimpleNamespace

import pytest

from medprism.errors import UserError
from medprism.training.share import check_fraction, share_of


def entry(subject, person=None, value=None):
    return SimpleNamespace(subject=subject, person=person or subject, class_label=value)


VISITS = [entry(f"{person}-{visit}", person) for person in "abcdefghij" for visit in range(1 + (person < "d"))]
CLASSED = [entry(f"{k:02}", value=int(k < 16)) for k in range(20)]  # sixteen of one class, four of another


def test_a_share_is_of_persons_and_nested():
    before = set()
    for fraction in (0.01, 0.1, 0.25, 0.5, 0.99, 1.0):
        chosen = share_of(VISITS, fraction, seed=0)
        persons = {one.person for one in chosen}
        assert len(persons) == max(1, round(10 * fraction))
        assert before <= persons
        assert chosen == [one for one in VISITS if one.person in persons]  # all visits, in their order
        before = persons
    halves = [{one.person for one in share_of(VISITS, 0.5, seed)} for seed in range(5)]
    assert len({tuple(sorted(half)) for half in halves}) > 1
    assert share_of(VISITS[::-1], 0.5, 0) == share_of(VISITS, 0.5, 0)[::-1]  # whatever the order of the file


def test_a_share_by_class_keeps_the_balance_and_one_person_of_each():
    before = set()
    for fraction, counts in ((0.01, (1, 1)), (0.25, (1, 4)), (0.5, (2, 8)), (1.0, (4, 16))):
        chosen = share_of(CLASSED, fraction, seed=3, by_class=True)
        values = [one.class_label for one in chosen]
        assert (values.count(0), values.count(1)) == counts
        assert before <= {one.person for one in chosen}
        before = {one.person for one in chosen}


def test_of_one_class_it_is_the_share_of_all():
    alike = [entry(one.subject, one.person, 7) for one in VISITS]
    for fraction in (0.2, 0.6):
        plain, by_class = (share_of(alike, fraction, 1, by_class=by_class) for by_class in (False, True))
        assert plain == by_class


def test_persons_whose_class_changed_and_those_without_one_are_no_other_class():
    changed = [entry("x0", "x", 0), entry("x1", "x", 1), entry("bare")]
    chosen = share_of([*CLASSED, *changed], 0.01, 0, by_class=True)
    assert {one.person for one in chosen} >= {"x", "bare"}
    assert len({one.person for one in chosen}) == 4


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan")])
def test_what_is_no_share(fraction):
    with pytest.raises(UserError, match="a share above 0 up to 1 for fraction"):
        check_fraction(fraction)
