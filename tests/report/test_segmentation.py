"""Segmentation in the page: tables, outlines, curves, runs beside each other."""

import json
import re
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from medprism.evaluation.results import Results
from medprism.evaluation.segmentation import evaluate_segmentation
from medprism.report import report
from medprism.report.beside import beside
from medprism.report.outlines import border, outlines
from medprism.report.subsets import lines
from tests.evaluation.fakes import FakeOutliner, outlined, outlined_cohort
from tests.evaluation.test_segmentation import blind
from tests.report.test_page import EVIL, Page, evaluate


def segmented(out, law=blind, *, test=None, **keys):
    cache = outlined_cohort(test or [outlined(f"test-{k}") for k in range(3)])
    model = FakeOutliner(cache, law)
    model.card["sha256"] = out.name
    evaluate_segmentation(model, cache, out=out, console=Console(file=StringIO()), **keys)
    return out


def page(runs, out):
    return report(runs, out=out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return segmented(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def text(run, tmp_path_factory):
    return page([run], tmp_path_factory.mktemp("html") / "report.html")


def test_every_part_is_there(text):
    found = Page(text)
    ids = {attrs["id"] for attrs in found.all("section")}
    assert ids == {"overview", "cohort", "training", "segmentation-1", "subjects-1", "representation-1", "reading"}
    assert {link["href"] for link in found.all("a")} == {f"#{name}" for name in ids}
    assert "Segmentation on fake" in found.words
    assert "Rivals." not in found.words
    dots = [attrs["class"] for attrs in found.all("i") if "dot" in attrs.get("class", "")]
    assert dots.count("dot on") == 12
    assert dots.count("dot") == 21 - 12
    assert len([a for a in found.all("div") if a.get("class") == "outliner"]) == 3
    assert any("number of missing scans" in i.get("alt", "") for i in found.all("img"))
    assert "no region was empty" not in found.words
    assert not re.search(r"https?://", text)


def test_outlines_of_every_subset_region_and_plane(text):
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[0])
    assert len(data["images"]) == 3 * 3
    assert len(data["paths"]) == 3 * 3 * (1 + 7)
    assert data["paths"]["axial/WT/truth"] == data["paths"]["axial/WT/t1n+t1c+t2w"]
    assert (area(data["paths"]["axial/WT/truth"]), area(data["paths"]["axial/WT/t2w"])) == (36, 18)
    assert data["paths"]["axial/ET/truth"] == ""  # the cut is through the most label, which is oedema


def area(path):
    """Pixels inside a path of horizontal and vertical edges, by the shoelace formula over its horizontal ones."""
    edges = [tuple(map(int, e)) for e in re.findall(r"M(\d+) (\d+)h(\d+)", path)]
    size = max((max(y, x + n) for x, y, n in edges), default=0) + 1
    flips = np.zeros((size, size), int)
    for x, y, n in edges:
        flips[y, x : x + n] += 1
    return (np.cumsum(flips, axis=0) % 2).sum()


def test_border_is_closed_and_encloses_the_mask():
    rng = np.random.default_rng(0)
    for mask in (rng.random((9, 13)) < 0.4, np.ones((3, 3), bool), np.zeros((3, 3), bool)):
        path = border(mask)
        assert area(path) == mask.sum()
        across, along = (sum(map(int, re.findall(rf"{step}(\d+)", path))) for step in "hv")
        padded = np.pad(mask, 1).astype(int)
        assert across == np.abs(np.diff(padded, axis=0)).sum()
        assert along == np.abs(np.diff(padded, axis=1)).sum()
    assert border(np.ones((2, 3), bool)) == "M0 0h3M0 2h3M0 0v2M3 0v2"


def test_outlines_lie_on_the_pictures(run):
    (best, *_), by = outlines(run / "slices.npz", ["t1n", "t1c", "t2w"], {"WT": [1, 2, 3]})
    assert by == "mean Dice over subsets and regions"
    assert best.given[0] == "t1n+t1c+t2w"
    plane = best.planes[0]
    assert (plane.name, plane.columns, plane.rows) == ("axial", 12, 14)
    assert plane.aspect == pytest.approx(12 / 14, abs=1e-4)
    assert area(best.paths["axial/WT/truth"]) == 36


def test_lines_follow_the_subsets(run):
    made = lines(Results.read(run), "model")
    assert [line.name for line in made][:4] == ["t1n", "t1c", "t2w", "t1n+t1c"]
    assert [line.first for line in made] == [False, False, False, True, False, False, True]
    assert made[3].dots == [True, True, False]
    assert made[0].n == 3


def test_runs_are_compared_by_paired_differences(run, tmp_path):
    better = segmented(tmp_path / "second", lambda labels, given: labels)
    found = Page(page([run, better], tmp_path / "report.html"))
    assert "− first" in found.words
    assert "+0.429 [+0.429" not in found.words  # the interval has no signs of its own
    assert "+0.429" in found.words
    assert any("every run over the number" in i.get("alt", "") for i in found.all("img"))


def test_runs_of_other_splits_are_not_compared(run, tmp_path):
    other = segmented(tmp_path / "second")
    metrics = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps({**metrics, "split_hash": "beef"}))
    assert "another split: not comparable" in Page(page([run, other], tmp_path / "report.html")).words


def test_transfer_and_segmentation_share_a_page(run, tmp_path):
    transfer = evaluate(tmp_path / "good" / "evaluation")
    found = Page(page([run, transfer.parent], tmp_path / "report.html"))
    ids = {attrs["id"] for attrs in found.all("section")}
    assert {"segmentation-1", "transfer-2-strict"} <= ids
    assert "runs" not in ids
    assert "Modality transfer and Segmentation on fake" in found.words
    assert beside([]) == []


def test_detection_small_and_left_out_are_told(tmp_path):
    test = [outlined("a"), outlined("b", empty=True), outlined("c")]
    test[2].segmentation = None
    words = Page(page([segmented(tmp_path / "run", test=test, small={"ET": 40})], tmp_path / "report.html")).words
    for told in ("Scans with and without WT", "TPR", "40 mm³ (ET)", "1 subjects without a label", "both empty in 21"):
        assert told in words
    assert "model+small" in words


def test_names_from_data_are_escaped(tmp_path):
    cache = outlined_cohort([outlined(EVIL)])
    cache.regions = {EVIL: [1, 2, 3]}
    evaluate_segmentation(FakeOutliner(cache), cache, out=tmp_path / "run", console=Console(file=StringIO()))
    found = Page(page([tmp_path / "run"], tmp_path / "report.html"))
    assert len(found.all("script")) == 1 + 1
    assert EVIL in found.words
