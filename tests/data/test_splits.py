import hashlib
import json

import pytest

from medprism.data import splits
from medprism.data.cohort import SPLITS, Subject
from medprism.errors import UserError


def people(count, visits=1, prefix="p"):
    return [
        Subject(f"{prefix}{i:03d}_v{v}", f"{prefix}{i:03d}", {"ct": "x"}) for i in range(count) for v in range(visits)
    ]


def persons(sides):
    return {side: {s.person for s in getattr(sides, side)} for side in SPLITS}


def assert_partition(sides, subjects):
    by_side = persons(sides)
    assert not by_side["training"] & by_side["validation"]
    assert not by_side["training"] & by_side["test"]
    assert not by_side["validation"] & by_side["test"]
    everyone = [*sides.training, *sides.validation, *sides.test, *sides.left_out]
    assert sorted(s.subject for s in everyone) == sorted(s.subject for s in subjects)


@pytest.mark.parametrize("count", [3, 4, 7, 10, 51])
def test_random_keeps_visits_together_and_fills_every_side(count):
    subjects = people(count, visits=2)
    sides = splits.random(subjects, (0.7, 0.1, 0.2), seed=1)
    assert_partition(sides, subjects)
    assert sides.left_out == ()
    assert all(persons(sides).values())


def test_random_sizes():
    def sizes(fractions, count):
        return [len(named) for named in persons(splits.random(people(count), fractions)).values()]

    assert sizes((0.7, 0.1, 0.2), 10) == [7, 1, 2]
    assert sizes((0.7, 0.1, 0.2), 26) == [18, 3, 5]
    assert sizes((0.8, 0.0, 0.2), 10) == [8, 0, 2]
    assert sizes((1.0, 0.0, 0.0), 1) == [1, 0, 0]
    assert sizes((0.98, 0.01, 0.01), 5) == [3, 1, 1]


def test_random_depends_on_the_seed_and_not_on_the_order():
    subjects = people(30)
    assert persons(splits.random(subjects, seed=1)) == persons(splits.random(subjects[::-1], seed=1))
    assert persons(splits.random(subjects, seed=1)) != persons(splits.random(subjects, seed=2))


def test_order_is_the_documented_one():
    order = sorted((f"p{i:03d}" for i in range(10)), key=lambda p: hashlib.sha256(f"7/{p}".encode()).hexdigest())
    assert persons(splits.random(people(10), seed=7))["training"] == set(order[:7])
    assert persons(splits.kfold(people(10), folds=5, fold=2, seed=7))["test"] == {order[2], order[7]}


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.0, 0.5, 0.5)])
def test_random_refuses_what_are_no_shares(fractions):
    with pytest.raises(UserError, match="three fractions"):
        splits.random(people(9), fractions)


def test_random_refuses_too_few_persons():
    with pytest.raises(UserError, match="at least 3 persons"):
        splits.random(people(2, visits=5))


@pytest.mark.parametrize(("count", "folds"), [(26, 5), (7, 3), (3, 3), (10, 10)])
def test_every_person_is_tested_once(count, folds):
    subjects = people(count, visits=2)
    tested = []
    for fold in range(folds):
        sides = splits.kfold(subjects, folds, fold, seed=3)
        assert_partition(sides, subjects)
        assert all(persons(sides).values())
        tested += sorted(persons(sides)["test"])
    assert sorted(tested) == sorted({s.person for s in subjects})


def test_kfold_refuses():
    with pytest.raises(UserError, match="2 to 4 folds"):
        splits.kfold(people(4), folds=5)
    with pytest.raises(UserError, match="a fold from 0 to 4, got 5"):
        splits.kfold(people(10), folds=5, fold=5)
    with pytest.raises(UserError, match="more than 2 persons"):
        splits.kfold(people(2), folds=2)


def write(path, *folds):
    path.write_text(json.dumps(folds))
    return path


def test_nnunet_fold(tmp_path):
    subjects = people(5)
    names = [s.subject for s in subjects]
    path = write(tmp_path / "s.json", {"train": names[1:], "val": names[:1]}, {"train": names[2:4], "val": names[:2]})
    sides = splits.from_nnunet(path, subjects, fold=1)
    assert_partition(sides, subjects)
    assert [s.subject for s in sides.training] == names[2:4]
    assert [s.subject for s in sides.validation] == names[:2]
    assert sides.test == ()
    assert [s.subject for s in sides.left_out] == names[4:]
    with pytest.raises(UserError, match="a fold from 0 to 1, got 2"):
        splits.from_nnunet(path, subjects, fold=2)


def test_nnunet_refuses_a_person_on_two_sides(tmp_path):
    path = write(tmp_path / "s.json", {"train": ["p000_v0"], "val": ["p000_v1"]})
    with pytest.raises(UserError, match="person 'p000' is on two sides, training and validation"):
        splits.from_nnunet(path, people(1, visits=2))


def test_nnunet_refuses_strange_cases_and_forms(tmp_path):
    path = write(tmp_path / "s.json", {"train": ["p000_v0", "zzz"], "val": ["p001_v0"]})
    with pytest.raises(UserError, match=r"names 1 cases that the cohort lacks \(zzz\)"):
        splits.from_nnunet(path, people(2))
    for form in ({"train": [], "val": []}, [], [{"train": []}]):
        (tmp_path / "s.json").write_text(json.dumps(form))
        with pytest.raises(UserError, match="as nnU-Net writes it"):
            splits.from_nnunet(tmp_path / "s.json", people(2))


def sts_patients():
    from importlib import resources

    folds = json.loads((resources.files("medprism.data") / "splits_sts.json").read_text())["folds"]
    return sorted({p for side in folds[0].values() for p in side})


def test_sts_is_the_documented_rule_frozen():
    subjects = [Subject(p, p, {"ct": "x"}) for p in sts_patients()]
    assert len(subjects) == 26
    for fold in range(5):
        sides = splits.shipped("sts", subjects, fold)
        assert sides == splits.kfold(subjects, 5, fold, seed=0)
        assert len(sides.validation) == 3
        assert len(sides.test) in (5, 6)


def test_sts_leaves_unlisted_patients_out_and_needs_the_listed():
    listed = [Subject(p, p, {"ct": "x"}) for p in sts_patients()]
    others = people(25, prefix="STS_9")
    sides = splits.shipped("sts", [*others, *listed], fold=3)
    assert list(sides.left_out) == others
    assert_partition(sides, [*others, *listed])
    with pytest.raises(UserError, match="lacks 1 of them"):
        splits.shipped("sts", listed[1:])
    with pytest.raises(UserError, match="a shipped split"):
        splits.shipped("stz", listed)
    with pytest.raises(UserError, match="a fold from 0 to 4"):
        splits.shipped("sts", listed, fold=-1)
