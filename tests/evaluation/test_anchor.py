"""The strongest modality, by hand and from real evaluations of a fake model."""

import pytest

from medprism.errors import UserError
from medprism.evaluation.anchor import strongest_modality
from medprism.evaluation.results import Results, Row
from tests.evaluation.fakes import FakeOutliner, outlined, outlined_cohort
from tests.evaluation.test_segmentation import blind, run

NAMES = ("t1n", "t1c", "t2f")


def written(folder, scores, **head):
    """An evaluation with these means: given names, joined by +, to Dice."""
    folder.mkdir(parents=True)
    about = {"task": "segmentation", "split": "validation", "split_hash": "a", "modalities": list(NAMES)}
    about |= {"regions": {"WT": [1]}, **head}
    rows = []
    for given, dice in scores.items():
        for method, metric, region, value in (
            ("model", "dice", "mean", dice),
            ("model", "hd95", "mean", 100 * dice if dice is not None else None),
            ("model", "dice", "WT", 1 - (dice or 0)),
            ("model+small", "dice", "mean", 1 - (dice or 0)),
        ):
            row = Row(
                "subsets", "subset", method, tuple(given.split("+")), None, region, metric, value, *[None] * 2, 3, 0
            )
            rows.append(row)
    Results(about, tuple(rows)).write(folder)
    return folder


def test_one_evaluation_of_all_subsets(tmp_path):
    folder = written(tmp_path / "e", {"t1n": 0.5, "t1c": 0.7, "t2f": 0.6, "t1n+t2f": 0.9})
    assert strongest_modality([folder]) == ("t1c", {"t1n": 0.5, "t1c": 0.7, "t2f": 0.6})
    assert strongest_modality([folder], ["FLAIR", "T1"]) == ("t2f", {"t2f": 0.6, "t1n": 0.5})


def test_an_evaluation_of_each_modality_and_the_mean_over_seeds(tmp_path):
    folders = [
        written(tmp_path / f"{name}-{seed}", {name: dice})
        for name, scores in {"t1n": (0.5, 0.6), "t1c": (0.9, 0.3), "t2f": (0.8, 0.5)}.items()
        for seed, dice in enumerate(scores)
    ]
    best, scores = strongest_modality(folders)
    assert best == "t2f"
    assert scores == pytest.approx({"t1n": 0.55, "t1c": 0.6, "t2f": 0.65})
    with pytest.raises(UserError, match=r"as many evaluations .* t1n 1, t1c 2, t2f 2"):
        strongest_modality(folders[1:])


def test_cohorts_of_one_modality_each(tmp_path):
    folders = [written(tmp_path / name, {name: dice}, modalities=[name]) for name, dice in (("t1n", 0.2), ("t2f", 0.3))]
    assert strongest_modality(folders) == ("t2f", {"t1n": 0.2, "t2f": 0.3})
    with pytest.raises(UserError, match="got none for t1c"):
        strongest_modality(folders, NAMES)


def test_a_modality_without_a_score_is_named(tmp_path):
    folder = written(tmp_path / "e", {"t1n": 0.5, "t1c": None, "t1c+t2f": 0.9})
    with pytest.raises(UserError, match="a Dice for each of t1n t1c t2f by itself, got none for t1c t2f"):
        strongest_modality([folder])


def test_evaluations_that_cannot_be_compared_are_refused(tmp_path):
    scores = dict.fromkeys(NAMES, 0.5)
    first = written(tmp_path / "first", scores)
    for key, value in {"split": "test", "split_hash": "b", "regions": {"ET": [3]}}.items():
        with pytest.raises(UserError, match=f"evaluations of one {key}, got two"):
            strongest_modality([first, written(tmp_path / key, scores, **{key: value})])
    with pytest.raises(UserError, match="of segmentation, got transfer"):
        strongest_modality([written(tmp_path / "transfer", scores, task="transfer")])
    with pytest.raises(UserError, match="got none"):
        strongest_modality([])


def test_of_a_real_evaluation_on_the_test_split_with_a_warning(tmp_path, caplog):
    cache = outlined_cohort([outlined(f"test-{k}") for k in range(2)])
    run(FakeOutliner(cache, blind), cache, tmp_path)
    best, scores = strongest_modality([tmp_path])
    assert best == "t1c"
    assert scores["t1c"] == 1 > scores["t1n"] > scores["t2w"]
    assert "chosen on the test split" in caplog.text
