"""Variants beside each other: means and spread over seeds, paired differences, tables of each task."""

import re
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from medprism.evaluation.classification import evaluate_classification
from medprism.evaluation.results import Results, read_scores
from medprism.evaluation.segmentation import evaluate_segmentation
from medprism.evaluation.transfer import evaluate_transfer
from medprism.evaluation.variants import print_variants
from tests.evaluation.fakes import FakeModel, FakeOutliner, cohort, law, outlined, outlined_cohort
from tests.evaluation.test_classification import Doctor, some


def quiet():
    return Console(file=StringIO())


def printed(evaluations):
    text = StringIO()
    print_variants(evaluations, Console(file=text, width=250))
    return text.getvalue()


def line(text, name, after=""):
    """The numbers of the first line of a name behind some text."""
    [found, *_] = re.findall(rf"^\s*(?:\S+ +)?{re.escape(name)} +(.*)$", text[text.index(after) :], re.MULTILINE)
    return re.findall(r"[+−]?\d+\.?\d*|–", found)


def outlines(out, part, **keys):
    """`part`: of the columns of each lesion that are found."""
    cache = outlined_cohort([outlined(f"test-{k}") for k in range(3)] + [outlined("bare", empty=True)])

    def seen(labels, given):
        labels = labels.copy()
        labels[5 if part < 1 else 20 :] = 0
        return labels

    evaluate_segmentation(FakeOutliner(cache, seen), cache, out=out, console=quiet(), **keys)
    return out


def test_segmentation_has_spread_over_seeds_and_differences_to_the_first(tmp_path):
    half, whole = outlines(tmp_path / "half", 0.5), outlines(tmp_path / "whole", 1)
    text = printed({"first": [half, half], "second": [whole, half]})
    [low] = Results.read(half).select(method="model", region="WT", metric="dice", group="all-subsets")
    middle = (1 + low.mean) / 2
    assert line(text, "first", "Dice")[:3] == ["2", f"{low.mean:.3f}", "0.000"]
    spread = np.std([1, low.mean], ddof=1)
    assert line(text, "second", "Dice")[:3] == ["2", f"{middle:.3f}", f"{spread:.3f}"]
    assert line(text, "− first", "Dice")[0] == f"{middle - low.mean:.3f}"
    for title in ("all subsets", "full", "1 missing", "HD95", "WT: scans with and without", "TPR", "FN ml"):
        assert title in text
    tnr = line(text, "first", "WT: scans with and without, mean")
    assert tnr[0] == "2"


def test_transfer_has_differences_to_the_first_and_to_lookup(tmp_path):
    cache = cohort(noise=0.3)
    places = {}
    for name, shift in (("good", 0.0), ("bad", 1.0)):
        model = FakeModel(cache, lambda i, j, x, shift=shift: law(i, j, x) + shift)
        places[name] = [tmp_path / name]
        evaluate_transfer(model, cache, out=tmp_path / name, console=quiet())
    text = printed(places)

    def psnr(name):
        rows = Results.read(tmp_path / name).select(group="off-diagonal", metric="psnr", region="foreground")
        return {row.method: row.mean for row in rows}

    assert line(text, "bad")[1] == f"{psnr('bad')['model']:.2f}"
    assert f"{psnr('good')['model-lookup']:.2f}".replace("-", "−") in line(text, "good")
    scores = {
        name: [s.value for s in read_scores(tmp_path / name)
               if (s.method, s.metric, s.region) == ("model", "psnr", "foreground") and s.given != (s.target,)]
        for name in places
    }  # fmt: skip
    difference = np.mean(scores["bad"]) - np.mean(scores["good"])
    assert line(text, "bad")[-1] == f"{difference:.2f}".replace("-", "−")
    assert "one seed" in text


def test_classification_has_differences_to_the_first(tmp_path):
    cache, places = some(), {}
    for name, turned in (("good", False), ("bad", True)):
        doctor = Doctor(cache)
        if turned:
            right = doctor.predict
            doctor.predict = lambda *scans, right=right, **more: right(*scans, **more)[::-1]
        evaluate_classification(doctor, cache, out=tmp_path / name, console=quiet())
        places[name] = [tmp_path / name]
    good, bad = (
        {row.metric: row.mean for row in Results.read(tmp_path / name).select(method="model", group="all-subsets")}
        for name in places
    )
    text = rest = printed(places)
    for metric, title in (("acc", "ACC ↑"), ("balanced_acc", "balanced ACC ↑"), ("auc", "AUC ↑"), ("f1", "F1 ↑")):
        rest = rest[rest.index(title) + len(title) :]
        assert line(rest, "good")[1] == f"{good[metric]:.3f}"
        assert line(rest, "bad")[1] == f"{bad[metric]:.3f}"
        assert line(rest, "− good")[0] == f"{bad[metric] - good[metric]:.3f}".replace("-", "−")
    assert "classification, test split, 6 subjects" in text


def test_tasks_are_not_mixed(tmp_path):
    cache = cohort(noise=0.3)
    evaluate_transfer(FakeModel(cache, law), cache, out=tmp_path / "transfer", console=quiet())
    text = printed({"a": [tmp_path / "transfer"], "b": [outlines(tmp_path / "b", 1)]})
    assert text.index("transfer, test split") < text.index("segmentation, test split")
    assert not re.search(r"^\s*− a", text, re.MULTILINE)


def test_seeds_of_one_variant_are_averaged_subject_by_subject(tmp_path):
    half, whole = outlines(tmp_path / "half", 0.5), outlines(tmp_path / "whole", 1)
    same = line(printed({"a": [half, whole], "b": [whole, half]}), "− a", "Dice")
    assert float(same[0].replace("−", "-")) == pytest.approx(0)
