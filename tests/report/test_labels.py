"""Label efficiency in the page: which runs make a curve, and where its points are."""

import json
from io import StringIO

import pytest
from rich.console import Console

from medprism.evaluation.classification import evaluate_classification
from medprism.evaluation.results import Results
from medprism.evaluation.segmentation import evaluate_segmentation
from medprism.report import report
from medprism.report.labels import efficiencies, methods_of
from medprism.report.runs import read_runs
from tests.evaluation.fakes import FakeOutliner, outlined, outlined_cohort
from tests.evaluation.test_classification import Doctor, some
from tests.report.test_page import Page


def run(out, fraction, *, rows, part=None, seed=0, init=None, **config):
    """An evaluation of a model that sees the first `rows` rows of every lesion."""
    cache = outlined_cohort([outlined(f"test-{k}") for k in range(3)])

    def seen(labels, given):
        labels = labels.copy()
        labels[rows:] = 0
        return labels

    model = FakeOutliner(cache, seen)
    model.card |= {"sha256": str(out), "config": {"part": part, "seed": seed, "init": init, "fraction": fraction}}
    model.card["config"] |= config
    evaluate_segmentation(model, cache, out=out, console=Console(file=StringIO()))
    return out


def dice(folder, region="mean"):
    [row] = Results.read(folder).select(method="model", region=region, metric="dice", group="all-subsets")
    return row.mean


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    return [
        run(root / "scratch-20", 0.2, rows=4),
        run(root / "scratch-100", 1.0, rows=6),
        run(root / "whole-20", 0.2, rows=5, part="model", init="ab", patches={"per_subject": 5}),
        run(root / "whole-20-1", 0.2, rows=6, part="model", init="cd", seed=1, patches={"per_subject": 5}),
        run(root / "whole-100", 1.0, rows=8, part="model", init="ab", patches={"per_subject": 1}),
    ]


def test_runs_that_differ_in_share_and_seed_are_one_method(folders):
    methods = methods_of(read_runs(folders))
    told = {name: {share: len(own) for share, own in shares.items()} for name, shares in methods.items()}
    assert told == {"from scratch": {0.2: 1, 1.0: 1}, "whole pre-trained model": {0.2: 2, 1.0: 1}}


def test_points_are_means_over_subsets_and_seeds(folders):
    [made] = efficiencies(read_runs(folders))
    assert made.what == "Dice"
    assert made.fractions == ["20 %", "100 %"]
    regions, rows = zip(*made.tables, strict=True)
    assert regions == ("WT", "TC", "ET", "mean")
    (_, scratch, none), (_, whole, differences) = rows[-1]
    assert [cell.text for cell in scratch] == [f"{dice(folder):.3f}" for folder in folders[:2]]
    mean = (dice(folders[2]) + dice(folders[3])) / 2
    assert whole[0].text == f"{mean:.3f}"
    assert whole[0].below
    assert none == []
    assert differences[0].text == f"+{mean - dice(folders[0]):.3f}"
    assert differences[1].verdict == "wins"


def test_they_are_in_the_page_and_without_several_shares_they_are_not(folders, tmp_path):
    found = Page(report(folders, out=tmp_path / "all.html").read_text(encoding="utf-8"))
    assert "Label efficiency" in found.words
    assert any("share of training persons" in image.get("alt", "") for image in found.all("img"))
    assert "whole pre-trained model" in found.words
    found = Page(report([folders[0], folders[2]], out=tmp_path / "two.html").read_text(encoding="utf-8"))
    assert "Label efficiency" not in found.words


def test_other_weights_with_the_same_seed_are_another_method(folders, tmp_path):
    more = [
        run(tmp_path / f"{share}", share, rows=7, part="model", init="ef" * 9, patches={"per_subject": 1})
        for share in (0.2, 1.0)
    ]
    names = list(methods_of(read_runs([folders[2], folders[4], *more])))
    assert names == ["whole pre-trained model, init ab", "whole pre-trained model, init efefefefefef"]


def test_other_options_are_another_method(tmp_path):
    made = [
        run(tmp_path / f"{kind}-{share}", share, rows=7, segmenter={"combine": kind})
        for kind in ("fused", "channels")
        for share in (0.5, 1.0)
    ]
    assert list(methods_of(read_runs(made))) == [
        "from scratch, segmenter.combine fused",
        "from scratch, segmenter.combine channels",
    ]


def test_another_split_is_left_out(folders, tmp_path):
    other = [run(tmp_path / f"{share}", share, rows=7) for share in (0.2, 1.0)]
    for folder in other:
        content = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps({**content, "split_hash": "beef"}))
    methods = methods_of(read_runs([*folders[:2], *other]))
    assert [[len(own) for own in shares.values()] for shares in methods.values()] == [[1, 1]]
    assert efficiencies([]) == []


def told(out, fraction, *, part=None, init=None, wrong=0, seed=0):
    """An evaluation of a model that takes the first `wrong` persons for what they are not."""
    cache = some()
    model = Doctor(cache)
    model.card |= {"sha256": str(out), "config": {"part": part, "seed": seed, "init": init, "fraction": fraction}}
    right, asked = model.predict, []

    def predict(images, present, *more, **named):
        asked.append(None)
        likely = right(images, present, *more, **named)
        return likely[::-1] if len(asked) <= 7 * wrong else likely

    model.predict = predict
    evaluate_classification(model, cache, out=out, console=Console(file=StringIO()))
    return out


def number(folder, metric):
    [row] = Results.read(folder).select(method="model", metric=metric, group="all-subsets")
    return row.mean


def test_classification_has_curves_of_its_own(folders, tmp_path):
    made = [
        told(tmp_path / "scratch-20", 0.2, wrong=3),
        told(tmp_path / "scratch-100", 1.0, wrong=1),
        told(tmp_path / "whole-20", 0.2, part="model", init="ab", wrong=2),
        told(tmp_path / "whole-20-1", 0.2, part="model", init="cd", seed=1),
        told(tmp_path / "whole-100", 1.0, part="model", init="ab"),
    ]
    segmented, classified = efficiencies(read_runs([*folders, *made]))
    assert (segmented.what, classified.what) == ("Dice", "ACC and AUC")
    assert [title for title, _ in classified.tables] == ["ACC ↑", "AUC ↑"]
    for metric, (_, rows) in zip(("acc", "auc"), classified.tables, strict=True):
        (scratch, first, _), (whole, second, differences) = rows
        assert (scratch, whole) == ("from scratch", "whole pre-trained model")
        assert [cell.text for cell in first] == [f"{number(folder, metric):.3f}" for folder in made[:2]]
        mean = (number(made[2], metric) + number(made[3], metric)) / 2
        assert second[0].text == f"{mean:.3f}"
        assert differences[0].text == f"{mean - number(made[0], metric):+.3f}".replace("-", "−")
    found = Page(report(made, out=tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Label efficiency" in found.words
    assert "Classification, AUC ↑" in found.words
    assert any("AUC over the share" in image.get("alt", "") for image in found.all("img"))
