import math

import pytest

from medprism.evaluation.comparison import averaged, compare_subsets, differences
from medprism.evaluation.results import Score
from medprism.evaluation.subsets import ALL, ONE


def scores(values, *, metric="dice", region="WT", method="model"):
    """`values`: {subset: [value of each subject]}."""
    return [
        Score("subsets", method, subset, None, region, metric, value, f"s{k}", f"p{k}")
        for subset, column in values.items()
        for k, value in enumerate(column)
    ]


A = {("a",): [0.5, 0.7, 0.9], ("a", "b"): [0.6, 0.8, 1.0]}
B = {("a",): [0.4, 0.6, 0.8], ("a", "b"): [0.5, 0.9, 0.7]}


def one(rows, **keys):
    (row,) = [r for r in rows if all(getattr(r, key) == value for key, value in keys.items())]
    return row


def test_differences_are_paired_by_subject_and_subset():
    rows = compare_subsets(scores(A), scores(B), ("a", "b"))
    row = one(rows, group=ONE, given=("a",), region="WT")
    assert (row.mean, row.method, row.n) == (pytest.approx(0.1), "difference", 3)
    assert row.ci95 == pytest.approx((0.1, 0.1))  # the same for every subject, however far those are apart
    assert one(rows, group=ALL, region="WT").mean == pytest.approx((0.1 + 0.1) / 2)
    assert one(rows, group=ALL, region="mean").mean == pytest.approx(0.1)


def test_only_what_both_have_is_compared():
    fewer = {("a",): [0.4, math.nan]}
    found = differences(scores(A), scores(fewer) + scores(B, method="empty"))
    assert [(score.given, score.subject) for score in found] == [(("a",), "s0")]
    rows = compare_subsets(scores(A), scores(fewer), ("a", "b"))
    assert {row.given for row in rows if row.group == ONE} == {("a",)}
    assert compare_subsets(scores(A), [], ("a", "b")) == ()


def test_several_seeds_count_as_their_mean():
    mean = averaged([scores(A), scores(B), scores({("a",): [0.0, 0.2, 0.4]})])
    assert [round(score.value, 6) for score in mean] == [0.3, 0.5, 0.7]
    assert {score.given for score in mean} == {("a",)}
