import numpy as np
import pytest

from medprism.evaluation.results import Score
from medprism.evaluation.statistics import Bootstrap
from medprism.evaluation.subset_summaries import summarise_subsets
from medprism.evaluation.subsets import ALL, ONE, chosen, every_subset, means_over


def scores(values, *, metric="dice", region="WT", method="model"):
    """`values`: {subset: {subject: value}}."""
    return [
        Score("subsets", method, subset, None, region, metric, value, subject, subject)
        for subset, column in values.items()
        for subject, value in column.items()
    ]


def one(rows, **keys):
    (row,) = [r for r in rows if all(getattr(r, key) == value for key, value in keys.items())]
    return row


def test_subsets_weigh_alike_however_many_subjects_have_them():
    rows = summarise_subsets(scores({("a",): {"s": 0.2, "t": 0.4, "u": 0.6}, ("a", "b"): {"s": 1.0}}), ("a", "b"))
    row = one(rows, group=ALL, region="WT")
    assert row.mean == pytest.approx((0.4 + 1.0) / 2)
    assert row.std == pytest.approx(np.std([0.4, 1.0], ddof=1))
    assert row.n == 3


def test_mean_of_one_column_is_the_plain_mean():
    values = np.array([0.3, np.nan, 0.5, 0.9, 0.1])
    bootstrap = Bootstrap(["p", "q", "q", "r", "s"], seed=3)
    plain, macro = bootstrap.summary(values), bootstrap.mean_of_means(values[:, None])
    assert (macro.mean, macro.n, macro.n_empty) == (plain.mean, plain.n, plain.n_empty)
    assert macro.ci95 == pytest.approx(plain.ci95)


def test_interval_of_a_mean_over_subsets_is_that_of_subject_means_where_all_are_complete():
    rng = np.random.default_rng(0)
    matrix = rng.random((9, 4))
    bootstrap = Bootstrap([f"p{k // 2}" for k in range(9)], seed=1)
    assert bootstrap.mean_of_means(matrix).ci95 == pytest.approx(bootstrap.summary(matrix.mean(axis=1)).ci95)


def test_nothing_to_average_is_no_number():
    summary = Bootstrap(["p", "q"]).mean_of_means(np.full((2, 3), np.nan))
    assert (summary.mean, summary.ci95, summary.n, summary.n_empty) == (None, None, 0, 2)


def test_what_does_not_count_is_left_out_of_detection():
    rows = summarise_subsets(scores({("a",): {"s": 1.0, "t": np.nan, "u": 0.0}}, metric="tpr"), ("a",))
    row = one(rows, group=ONE)
    assert (row.mean, row.n, row.n_empty) == (0.5, 2, 1)
    assert not [row for row in rows if row.region == "mean"]


def test_subsets_and_their_means():
    names = ("t1n", "t1c", "t2w", "t2f")
    subsets = every_subset(names)
    assert len(subsets) == len(set(subsets)) == 15
    sizes = {name: len(group) for name, group in means_over(subsets, names).items()}
    assert sizes == {"all-subsets": 15, "without-full": 14, "missing-1": 4, "missing-2": 6, "missing-3": 4}
    assert chosen("all", names) == subsets
    assert chosen(["FLAIR+T1", "t1n+t2f", "t1c"], names) == [("t1c",), ("t1n", "t2f")]
    assert list(means_over([("ct",)], ("ct",))) == ["all-subsets"]
