"""Classification in the page: every subset, means beside the rival."""

from io import StringIO

import pytest
from rich.console import Console

from medprism.evaluation.classification import evaluate_classification
from medprism.evaluation.results import Results
from medprism.report import report
from medprism.report.classes import lines, means
from tests.evaluation.test_classification import Doctor, some
from tests.report.test_page import Page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    cache, out = some(), tmp_path_factory.mktemp("runs") / "first"
    evaluate_classification(Doctor(cache), cache, out=out, console=Console(file=StringIO()))
    return out


def test_every_part_is_there(run, tmp_path):
    found = Page(report([run], out=tmp_path / "report.html").read_text(encoding="utf-8"))
    ids = {attrs["id"] for attrs in found.all("section")}
    assert ids == {"overview", "cohort", "training", "classification-1", "representation-1", "reading"}
    assert {link["href"] for link in found.all("a")} == {f"#{name}" for name in ids}
    assert "Classification on fake" in found.words
    assert "3 well, 3 ill" in found.words
    dots = [attrs["class"] for attrs in found.all("i") if "dot" in attrs.get("class", "")]
    assert (dots.count("dot on"), dots.count("dot")) == (12, 21 - 12)


def test_lines_are_the_rows(run):
    results = Results.read(run)
    found = {line.name: line for line in lines(results)}
    assert len(found) == 7
    assert [cell.text for cell in found["t1c"].cells] == ["1.000"] * 4
    assert [line.name for line in found.values() if line.first] == ["t1n+t1c", "t1n+t1c+t2w"]
    shown = {(metric, method): cells for metric, method, cells in means(results)}
    assert len(shown) == 8
    assert shown["AUC ↑", "majority"][0].text == "0.500"
