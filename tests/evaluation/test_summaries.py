import math

import pytest

from medprism.evaluation.comparison import caution, verdict, worst_verdict
from medprism.evaluation.results import Row, Score
from medprism.evaluation.summaries import MEAN, summarise


def scores(method, values, *, protocol="strict", metric="psnr", region="foreground"):
    """`values`: {(source, target): [value of each subject]}."""
    return [
        Score(protocol, method, (source,), target, region, metric, value, f"s{k}", f"p{k}")
        for (source, target), column in values.items()
        for k, value in enumerate(column)
    ]


PAIRS = {("t1n", "t1n"): [50.0, 50.0], ("t1n", "t2w"): [10.0, 20.0], ("t2w", "t1n"): [30.0, 20.0]}
OFF = {pair: column for pair, column in PAIRS.items() if pair[0] != pair[1]}


def one(rows, **keys):
    (row,) = [r for r in rows if all(getattr(r, key) == value for key, value in keys.items())]
    return row


def test_headline_leaves_out_the_diagonal_and_shows_it():
    rows = summarise(scores("model", PAIRS))
    headline = one(rows, group=MEAN)
    assert (headline.mean, headline.std, headline.n) == (20.0, 0.0, 2)
    assert (headline.given, headline.target) == ((), None)
    assert one(rows, group="diagonal").mean == 50.0
    assert not [row for row in rows if row.group == "with diagonal"]
    assert one(rows, group="to t2w").mean == 15.0
    assert one(rows, group="to t2w").target == "t2w"


def test_paper_averages_the_diagonal_in():
    rows = summarise(scores("model", PAIRS, protocol="paper") + scores("lookup", OFF, protocol="paper"))
    assert one(rows, group="with diagonal").mean == pytest.approx((50 + 10 + 30) / 3)
    assert one(rows, group="with diagonal").method == "model"
    assert one(rows, group=MEAN, method="lookup").mean == 20.0


def test_paired_differences_are_taken_subject_by_subject():
    rival = {("t1n", "t2w"): [9.0, 19.5], ("t2w", "t1n"): [29.0, 19.5]}
    rows = summarise(scores("model", PAIRS) + scores("lookup", rival))
    difference = one(rows, group=MEAN, method="model-lookup")
    assert difference.mean == pytest.approx(0.75)
    assert difference.ci95 == pytest.approx((0.5, 1.0))
    assert one(rows, group="pair", method="model-lookup", target="t2w").mean == pytest.approx(0.75)
    assert not [row for row in rows if row.method == "model-identity"]


def test_incomplete_subjects_count_where_they_have_the_pair():
    rows = summarise(scores("model", {("t1n", "t2w"): [10.0, 20.0], ("t2w", "t1n"): [30.0]}))
    assert one(rows, group="pair", target="t1n").n == 1
    assert one(rows, group="pair", target="t1n").n_empty == 0
    assert one(rows, group=MEAN).mean == pytest.approx((20 + 20) / 2)


def test_what_has_no_value_is_counted_not_averaged():
    rows = summarise(scores("model", {("t1n", "t2w"): [10.0, math.nan]}))
    assert (one(rows, group="pair").mean, one(rows, group="pair").n, one(rows, group="pair").n_empty) == (10.0, 1, 1)
    assert one(rows, group=MEAN).n_empty == 1


def test_kinds_of_scanners_have_rows_of_their_own():
    values = {("ct", "pet"): [1.0], ("pet", "ct"): [2.0], ("ct", "t1n"): [3.0], ("ct", "t2w"): [5.0]}
    rows = summarise(scores("model", values))
    assert one(rows, group="ct → mri").mean == 4.0
    assert one(rows, group="pet → ct").mean == 2.0
    assert not [row for row in summarise(scores("model", OFF)) if "→" in row.group]


def test_rest_is_a_group_of_its_own():
    rest = [Score("strict", "model", ("t1n", "t2w"), "t2f", "foreground", "psnr", 40.0, "s0", "p0")]
    rows = summarise(scores("model", OFF) + rest)
    assert one(rows, group="rest").mean == 40.0
    assert one(rows, group=MEAN).mean == 20.0
    assert one(rows, group="pair", target="t2f").given == ("t1n", "t2w")


def difference(mean, ci95, metric="psnr"):
    return Row("strict", MEAN, "model-lookup", (), None, "foreground", metric, mean, 1.0, ci95, 5, 0)


@pytest.mark.parametrize(
    ("mean", "ci95", "metric", "word"),
    [
        (1.0, (0.5, 1.5), "psnr", "wins"),
        (1.0, (-0.5, 2.5), "psnr", "level"),
        (1.0, None, "psnr", "level"),
        (-0.1, (-1.0, 1.0), "psnr", "loses"),
        (-0.1, (-0.2, -0.05), "nmse", "wins"),
        (0.1, (-0.2, 0.3), "mae_hu", "loses"),
        (None, None, "psnr", None),
    ],
)
def test_verdict(mean, ci95, metric, word):
    assert verdict(difference(mean, ci95, metric)) == word


def test_the_strongest_rival_decides():
    good, bad = difference(1.0, (0.5, 1.5)), difference(-1.0, None)
    assert worst_verdict([good, bad]) == "loses"
    assert worst_verdict([good]) == "wins"
    assert worst_verdict([]) is None


def test_only_the_test_split_needs_no_caution():
    assert caution("test") is None
    assert "trained" in caution("training")
    assert "chosen" in caution("validation")
