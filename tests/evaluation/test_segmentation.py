import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from medprism.errors import UserError
from medprism.evaluation.overlap import diagonal, dice, hd95
from medprism.evaluation.results import Results, read_scores
from medprism.evaluation.segmentation import evaluate_segmentation
from medprism.evaluation.subsets import ALL, ONE, WITHOUT_FULL, missing, row_of
from tests.evaluation.fakes import SHAPE, FakeOutliner, outlined, outlined_cohort

SPACING = (2.0, 2.0, 3.0)


def run(model, cache, out, **keys):
    text = StringIO()
    evaluate_segmentation(model, cache, out=out, console=Console(file=text, width=200), **keys)
    return Results.read(out), text.getvalue()


def blind(labels, given):
    """Sees the enhancing part only in t1c, and half of the rest in t2w alone."""
    labels = labels.copy()
    if "t1c" not in given:
        labels[labels == 3] = 1
    if given == ("t2w",):
        labels[5:] = 0
    return labels


def cohort(count=4):
    return outlined_cohort([outlined(f"test-{k}") for k in range(count)])


def one(results, **keys):
    (row,) = results.select(**keys)
    return row


def test_every_subset_of_every_subject_is_run_once(tmp_path):
    cache = outlined_cohort([outlined("whole"), outlined("holed", present=(True, False, True))])
    model = FakeOutliner(cache)
    results, _ = run(model, cache, tmp_path / "out")
    assert len(model.calls) == 7 + 3
    assert len(set(model.calls)) == 7
    counts = {row.given: row.n for row in results.select(group=ONE, region="WT", metric="dice", method="model")}
    assert counts[("t1n", "t2w")] == 2
    assert counts[("t1n", "t1c", "t2w")] == 1
    assert all(row.mean == 1.0 for row in results.select(metric="dice"))
    assert all(row.mean == 0.0 for row in results.select(metric="hd95"))


def test_values_are_those_of_the_label_maps(tmp_path):
    cache = cohort(1)
    results, _ = run(FakeOutliner(cache, blind), cache, tmp_path / "out")
    truth = cache.splits["test"][0].segmentation
    for region, values in cache.regions.items():
        a, b = np.isin(truth, values), np.isin(blind(truth, ("t2w",)), values)
        pick = {"given": ("t2w",), "region": region, "method": "model"}
        assert one(results, metric="dice", **pick).mean == dice(a, b)
        assert one(results, metric="hd95", **pick).mean == hd95(a, b, SPACING)
        assert one(results, metric="truth_ml", **pick).mean == pytest.approx(a.sum() * 0.012)
        assert one(results, metric="output_ml", **pick).mean == pytest.approx(b.sum() * 0.012)


def test_means_over_subsets_are_means_of_the_subsets(tmp_path):
    cache = cohort()
    results, _ = run(FakeOutliner(cache, blind), cache, tmp_path / "out")
    pick = {"region": "ET", "metric": "dice", "method": "model"}
    with_t1c = {row.given: row.mean for row in results.select(group=ONE, **pick)}
    assert with_t1c == {given: float("t1c" in given) for given in with_t1c}
    values = list(with_t1c.values())
    row = one(results, group=ALL, **pick)
    assert (row.mean, row.std, row.n) == (pytest.approx(4 / 7), pytest.approx(np.std(values, ddof=1)), 4)
    assert row.given == ()
    assert one(results, group=WITHOUT_FULL, **pick).mean == pytest.approx(3 / 6)
    assert one(results, group=missing(1), **pick).mean == pytest.approx(2 / 3)
    assert one(results, group=missing(2), **pick).mean == pytest.approx(1 / 3)
    regions = [one(results, given=("t2w",), region=r, metric="dice", method="model").mean for r in ("WT", "TC", "ET")]
    assert one(results, given=("t2w",), region="mean", metric="dice", method="model").mean == np.mean(regions)


def test_rules_for_empty_regions_are_applied_and_counted(tmp_path):
    cache = outlined_cohort([outlined("a"), outlined("b"), outlined("c", empty=True)])
    results, text = run(FakeOutliner(cache, blind), cache, tmp_path / "out", detection=False)
    pick = {"given": ("t1n",), "region": "ET", "method": "model"}
    row = one(results, metric="dice", **pick)
    assert (row.mean, row.n, row.n_empty, row.n_one_empty) == (pytest.approx(1 / 3), 3, 1, 2)
    assert one(results, metric="hd95", **pick).mean == pytest.approx(diagonal(SHAPE, SPACING) * 2 / 3)
    row = one(results, group=ALL, region="mean", metric="dice", method="model")
    assert (row.n_empty, row.n_one_empty) == (7 * 3, 2 * 3)
    assert "both empty in 21" in text
    assert "one of them in 6" in text
    assert "both empty: Dice 1" in results.head["empty_rule"]


def test_finding_nothing_is_a_rival_where_there_may_be_nothing(tmp_path):
    cache = outlined_cohort([outlined("a"), outlined("c", empty=True)])
    results, _ = run(FakeOutliner(cache), cache, tmp_path / "out")
    assert one(results, group=ALL, method="empty", region="WT", metric="dice").mean == 0.5
    results, _ = run(FakeOutliner(cohort()), cohort(), tmp_path / "full")
    assert {row.method for row in results.rows} == {"model"}


def test_detection_where_a_subject_has_no_lesion(tmp_path):
    cache = outlined_cohort([outlined("a"), outlined("b", empty=True), outlined("c", empty=True)])

    def ghost(labels, given):
        labels = labels.copy()
        labels[0, 0, 0] = 2 if given == ("t1n",) else 0
        return labels

    results, text = run(FakeOutliner(cache, ghost), cache, tmp_path / "out")
    assert results.head["detection"] is True
    pick = {"given": ("t1n",), "region": "WT", "method": "model"}
    assert one(results, metric="tpr", **pick).mean == 1.0
    assert one(results, metric="fpr", **pick).mean == 1.0
    assert one(results, metric="fpr", **pick).n == 2
    assert one(results, metric="tnr", given=("t2w",), region="WT", method="model").mean == 1.0
    assert one(results, metric="fpv_ml", **pick).mean == pytest.approx(0.012)
    assert one(results, metric="dice_paper", **pick).n == 3
    assert one(results, metric="tpr", group=ALL, region="WT", method="empty").mean == 0.0
    assert "TPR" in text
    results, text = run(FakeOutliner(cohort()), cohort(), tmp_path / "full")
    assert results.head["detection"] is False
    assert "TPR" not in text


def test_small_regions_dropped_are_scored_beside_the_raw(tmp_path):
    cache = outlined_cohort([outlined("a"), outlined("b", empty=True)])

    def ghost(labels, given):
        labels = labels.copy()
        labels[0, 0, 0] = 3
        return labels

    results, text = run(FakeOutliner(cache, ghost), cache, tmp_path / "out", small={"ET": 50.0, "WT": 50.0})
    pick = {"group": ALL, "region": "ET", "metric": "dice"}
    assert one(results, method="model", **pick).mean < 0.5
    assert one(results, method="model+small", **pick).mean > 0.9
    assert results.head["small"]["ET"]["LeastMm3"] == 50.0
    assert "model+small: every subset" in text


def test_tables(tmp_path):
    cache = cohort()
    _, text = run(FakeOutliner(cache, blind), cache, tmp_path / "out")
    words = " ".join(text.split())
    assert "all subsets without full full 1 missing 2 missing" in words
    assert "0.571 ±0.535" in words
    assert len([line for line in text.splitlines() if "○" in line]) == 6
    assert any(line.count("●") == 3 for line in text.splitlines())
    assert "no region was empty" not in words


def test_folder_holds_what_a_report_needs(tmp_path):
    cache = outlined_cohort([outlined(f"test-{k}") for k in range(3)])
    run(FakeOutliner(cache, blind), cache, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json", "per_subject.csv", "subjects.csv", "slices.npz", "model.json",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    scores = read_scores(tmp_path / "out")
    assert {s.given for s in scores} == {tuple(word.split("+")) for word in json.loads(
        (tmp_path / "out" / "metrics.json").read_text())["subsets"]}  # fmt: skip
    with np.load(tmp_path / "out" / "slices.npz") as stored:
        about = json.loads(str(stored["about"]))
        assert set(about["subjects"]) == {"best", "median", "worst"}
        truth = cache.splits["test"][0].segmentation
        (area,) = {int(np.argmax(np.count_nonzero(truth, axis=(0, 1))))}
        np.testing.assert_array_equal(stored["best/axial/labels/truth"], truth[:, :, area])
        np.testing.assert_array_equal(stored["best/axial/labels/t2w"], blind(truth, ("t2w",))[:, :, area])


def test_some_subsets_only(tmp_path):
    cache = outlined_cohort([outlined("a", present=(True, True, False))])
    model = FakeOutliner(cache)
    results, _ = run(model, cache, tmp_path / "out", subsets=("T1c", "t1c+t1n"))
    assert results.head["subsets"] == ["t1c", "t1n+t1c"]
    assert row_of(results, ["t1c", "t1n"]).mean == 1.0
    with pytest.raises(UserError, match=r"t1c, t1n\+t1c.*got t1n"):
        row_of(results, ["t1n"])
    with pytest.raises(UserError, match="some test subject has, got t2w"):
        run(model, cache, tmp_path / "other", subsets=("t2w", "t1n"))
    with pytest.raises(UserError, match="got t2f in t1n"):
        run(model, cache, tmp_path / "other", subsets=("t1n+t2f",))
    with pytest.raises(UserError, match="expected all or subsets"):
        run(model, cache, tmp_path / "other", subsets=())


def test_subjects_without_label_are_left_out_and_counted(tmp_path):
    cache = cohort(3)
    cache.splits["test"][1].segmentation = None
    results, _ = run(FakeOutliner(cache), cache, tmp_path / "out")
    assert (results.head["subjects"], results.head["unlabelled"]) == (2, 1)
    for each in cache.splits["test"]:
        each.segmentation = None
    with pytest.raises(UserError, match="subjects with labels"):
        run(FakeOutliner(cache), cache, tmp_path / "none")


def test_mistakes_are_told_and_leave_nothing(tmp_path):
    cache = cohort(2)
    model = FakeOutliner(cache)
    with pytest.raises(UserError, match="expected a region"):
        run(model, cache, tmp_path / "out", small={"XX": 3.0})
    model.labels = {"background": 0, "tumour": 1}
    with pytest.raises(UserError, match=r"tumour 1\), got background 0, NCR 1"):
        run(model, cache, tmp_path / "out")
    broken = FakeOutliner(cache, lambda labels, given: labels)
    broken.predict = lambda *about, **_: np.full((4, *SHAPE), np.nan, np.float32)
    with pytest.raises(UserError, match=r"test-0.*non-finite"):
        run(broken, cache, tmp_path / "out")
    seen = FakeOutliner(cache)
    cache.splits["test"][1].person = "train-0"
    with pytest.raises(UserError, match="test-1"):
        run(seen, cache, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_reproducible(tmp_path):
    for name in ("a", "b"):
        run(FakeOutliner(cohort(), blind), cohort(), tmp_path / name, seed=3)
    for file in ("metrics.json", "per_subject.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
