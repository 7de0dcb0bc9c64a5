"""Classifications beside each other: means over seeds and differences are those of the numbers, on what all scored."""

from dataclasses import replace

import numpy as np
import pytest

from medprism.evaluation.class_comparison import compare_classes, mean_classes
from medprism.evaluation.class_summaries import PROTOCOL, Told, summarise_classes
from medprism.evaluation.results import Score
from medprism.evaluation.subsets import ALL, ONE, every_subset

NAMES, CLASSES, PERSONS = ("t1n", "t2f"), ("well", "ill"), 12
TRUTH = np.arange(PERSONS) % 2


def likely(skill, seed):
    """(subsets, persons) probability of being ill, the better the more `skill`."""
    noise = np.random.default_rng(seed).random((3, PERSONS))
    return skill * TRUTH + (1 - skill) * noise


def scores(probability, persons=range(PERSONS)):
    found = []
    for given, row in zip(every_subset(NAMES), probability, strict=True):
        for k in persons:
            for place, name in enumerate(CLASSES):
                value = row[k] if place else 1 - row[k]
                for metric, number in (("probability", value), ("truth", float(TRUTH[k] == place))):
                    found.append(Score(PROTOCOL, "model", given, None, name, metric, number, f"s{k}", f"p{k // 2}"))
    return found


def rows_of(probability):
    """What `evaluate` would have written."""
    told = {
        given: Told(np.arange(PERSONS), np.stack([1 - row, row], axis=1))
        for given, row in zip(every_subset(NAMES), probability, strict=True)
    }
    return summarise_classes({"model": told}, TRUTH, [f"p{k // 2}" for k in range(PERSONS)], NAMES)


GOOD, OTHER, BAD = likely(0.6, 1), likely(0.5, 2), likely(0.1, 3)


def means(rows):
    return {(row.group, row.given, row.metric): row.mean for row in rows}


def test_of_one_training_it_is_its_evaluation():
    assert mean_classes([scores(GOOD)], NAMES) == rows_of(GOOD)


def test_seeds_count_as_the_mean_of_their_numbers():
    found, one, two = (
        means(rows) for rows in (mean_classes([scores(GOOD), scores(BAD)], NAMES), rows_of(GOOD), rows_of(BAD))
    )
    assert found == pytest.approx({key: (one[key] + two[key]) / 2 for key in one})


def test_differences_are_those_of_the_means_and_paired():
    rows = compare_classes([scores(GOOD), scores(OTHER)], [scores(BAD)], NAMES)
    one, two, bad = (means(rows_of(each)) for each in (GOOD, OTHER, BAD))
    assert means(rows) == pytest.approx({key: (one[key] + two[key]) / 2 - bad[key] for key in one})
    assert {row.method for row in rows} == {"difference"}
    [auc] = [row for row in rows if (row.group, row.metric) == (ALL, "auc")]
    assert auc.ci95[0] <= auc.mean <= auc.ci95[1]
    same = compare_classes([scores(GOOD)], [scores(GOOD)], NAMES)
    assert {row.ci95 for row in same} == {(0.0, 0.0)}  # drawn alike


def test_only_what_all_scored_counts():
    some = scores(GOOD, range(8))
    rows = compare_classes([scores(BAD)], [[one for one in some if one.given != NAMES]], NAMES)
    assert {row.given for row in rows if row.group == ONE} == {("t1n",), ("t2f",)}
    assert {row.n for row in rows} == {8}
    other = [replace(one, region=f"not {one.region}") for one in scores(GOOD)]
    assert compare_classes([scores(GOOD)], [other], NAMES) == ()


def test_order_means_nothing():
    assert mean_classes([scores(GOOD), scores(BAD)[::-1]], NAMES) == mean_classes([scores(GOOD), scores(BAD)], NAMES)
