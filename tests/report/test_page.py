import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from medprism.errors import UserError
from medprism.evaluation.results import Results, Row, write_scores
from medprism.evaluation.transfer import evaluate_transfer
from medprism.report import report
from tests.evaluation.fakes import FakeModel, cohort, law

EVIL = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Elements and their attributes."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._in = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in not in ("script", "style"):
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def wrong(source, target, x):
    return np.zeros_like(x) if source != target else x


def evaluate(out, *, seed=0, model_law=law, name="fake", rename=None, log=True, **keys):
    cache = cohort(noise=0.3)
    cache.name = name
    if rename:
        for k, entry in enumerate(cache.splits["test"]):
            entry.subject = entry.person = f"{rename}{k}"
    run = out.parent
    if log:
        (run / "model").mkdir(parents=True, exist_ok=True)
        rows = [f"{k},{3 / (k + 1)},{1 / (k + 1)},{20 + k}" for k in range(4)]
        (run / "metrics.csv").write_text("\n".join(["epoch,train/loss,train/invariance,val/psnr", *rows]))
    model = FakeModel(cache, model_law, path=run / "model")
    evaluate_transfer(model, cache, out=out, seed=seed, console=Console(file=StringIO()), **keys)
    return out


def page(runs, out, **keys):
    return report(runs, out=out, **keys).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "good"
    evaluate(folder / "evaluation", protocols=("strict", "paper"))
    return folder


@pytest.fixture(scope="module")
def text(run, tmp_path_factory):
    return page([run], tmp_path_factory.mktemp("html") / "report.html")


def test_nothing_is_loaded_from_elsewhere(text):
    found = Page(text)
    sources = [
        attrs.get(key) for _, attrs in found.elements for key in ("src", "href", "data", "action") if key in attrs
    ]
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not found.all("link")
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)


def test_policy_admits_our_script_only(text):
    (policy,) = (m["content"] for m in Page(text).all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_part_is_there(text):
    found = Page(text)
    ids = {attrs["id"] for attrs in found.all("section")}
    assert ids == {
        "overview", "cohort", "training", "transfer-1-strict", "transfer-1-paper", "subjects-1", "representation-1",
        "reading",
    }  # fmt: skip
    assert {link["href"] for link in found.all("a")} == {f"#{name}" for name in ids}
    assert len([a for a in found.all("div") if a.get("class") == "viewer"]) == 3
    assert len(found.all("circle")) == 2 * 4 * 3
    assert len([i for i in found.all("i") if "title" in i]) == 8 * 3
    assert "leaks the target" in found.words
    assert "c0ffee" in found.words
    for word in ("identity", "lookup", "SSIM", "seed"):
        assert word in found.words


def test_pictures_of_every_pair_and_plane(text):
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    images = json.loads(blocks[0])
    assert len(images) == 3 * (3 + 6 + 6)
    assert all(uri.startswith("data:image/png;base64,") for uri in images.values())
    viewer = next(a for a in Page(text).all("div") if a.get("class") == "viewer")
    assert len(json.loads(viewer["data-pairs"])) == 6


def test_losing_is_said_first(tmp_path):
    bad = page([evaluate(tmp_path / "bad" / "evaluation", model_law=wrong)], tmp_path / "bad.html")
    assert "callout loses" in bad
    assert "loses to a trivial rival in PSNR, SSIM, NMSE" in bad


def test_names_from_data_are_escaped(tmp_path):
    run = tmp_path / 'a"><img src=x onerror=alert(2)>'.replace("/", "")
    evaluate(run / "evaluation", rename=EVIL, name=EVIL)
    (run / "metrics.csv").write_text('epoch,train/loss,"train/<b>$x_{"\n0,1,1\n1,,2\n')
    found = Page(page([run, run / "evaluation"], tmp_path / "report.html"))
    assert len(found.all("script")) == 2 * 3 + 1
    assert not [i for i in found.all("img") if "onerror" in i]
    assert not [attrs for _, attrs in found.elements if any(name.startswith("on") for name in attrs)]
    assert any(EVIL in attrs.get("title", "") for attrs in found.all("i"))
    assert EVIL in found.words


def test_missing_parts_are_said(tmp_path):
    out = evaluate(tmp_path / "evaluation", log=False, representation=False)
    (out / "slices.npz").unlink()
    (out / "subjects.csv").unlink()
    words = Page(page([out], tmp_path / "report.html")).words
    assert "training log, list of subjects, slices, representation" in words
    for sentence in (
        "no training log",
        "no slices",
        "list of subjects is not there",
        "no picture of the representation",
    ):
        assert sentence in words


def test_run_without_evaluation_shows_its_training(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,train/loss\n0,2\n1,1\n")
    found = Page(page([run], tmp_path / "report.html"))
    assert "no evaluation in this folder" in found.words
    assert any(i["src"].startswith("data:image/svg+xml") for i in found.all("img"))


def test_training_run_beside_its_evaluation_is_one_run(tmp_path):
    out = evaluate(tmp_path / "evaluation", log=False)
    run = tmp_path / "first-run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.json").write_text(json.dumps({"sha256": "ab" * 32}))
    (run / "metrics.csv").write_text("epoch,train/loss\n0,2\n1,1\n")
    found = Page(page([run, out], tmp_path / "report.html"))
    assert "runs" not in {attrs["id"] for attrs in found.all("section")}
    assert "no training log" not in found.words
    assert "not there" not in found.words


@pytest.fixture(scope="module")
def measured(run, tmp_path_factory):
    """The representation of the model that `run` evaluated, measured."""
    out = tmp_path_factory.mktemp("measured") / "representation"
    out.mkdir()
    rng = np.random.default_rng(0)
    columns = [(f"s{p}", f"p{p}", m) for p in range(4) for m in ("t1n", "t1c", "t2w") for _ in range(2)]
    subject, person, modality = (np.array(column) for column in zip(*columns, strict=True))
    z, x_h = rng.normal(size=(2, len(columns), 5))
    np.savez(out / "representation.npz", z=z, x_h=x_h, subject=subject, person=person, modality=modality)
    head = Results.read(run / "evaluation").head | {"task": "representation", "protocol": "crops", "crops": 8}
    values = {"model": 0.123, "untrained": 4.567, "chance": 0.25}
    rows = [
        Row("crops", "mean", method, (), None, region, "person_top1", mean, None, (0.1, 0.2), 4, 0)
        for method, mean in values.items()
        for region in ("z", "x_h")
    ]
    Results(head, tuple(rows)).write(out)
    write_scores([], out)
    return out


def test_representation_joins_the_evaluation_of_its_model(run, measured, tmp_path):
    found = Page(page([measured, run], tmp_path / "report.html"))
    assert "runs" not in {attrs["id"] for attrs in found.all("section")}
    for word in ("0.123", "4.567", "same person found, top-1", "z, coloured by person", "8 crops", "SSIM"):
        assert word in found.words
    assert len(found.all("circle")) == 2 * 2 * 12  # one a scan, not one a crop


def test_representation_alone_is_a_page(measured, tmp_path):
    found = Page(page([measured], tmp_path / "report.html"))
    assert "Representation of fake" in found.words
    assert "0.123" in found.words
    assert "no slices" not in found.words


def test_representations_of_several_runs_are_compared(run, measured, tmp_path):
    other = tmp_path / "variant" / "seed-0" / "representation"
    shutil.copytree(measured, other)
    results = Results.read(other)
    Results({**results.head, "model_hash": "cd" * 32}, results.rows).write(other)
    found = Page(page([run, measured, other], tmp_path / "report.html"))
    assert "runs" in {attrs["id"] for attrs in found.all("section")}
    assert "person found ↑" in found.words
    assert [svg["aria-label"] for svg in found.all("svg") if "aria-label" in svg][:2] == [
        f"{name}: x_h by t-SNE, coloured by modality" for name in ("good", "seed-0")
    ]


def test_seeds_of_several_variants_have_names_of_their_own(run, tmp_path):
    places = [tmp_path / variant / "seed-0" / "evaluation" for variant in ("plain", "no-prior")]
    for number, place in enumerate(places):
        shutil.copytree(run / "evaluation", place)
        results = Results.read(place)
        Results({**results.head, "model_hash": str(number)}, results.rows).write(place)
    words = Page(page(places, tmp_path / "report.html")).words
    assert "plain/seed-0" in words
    assert "no-prior/seed-0" in words


def test_help_does_not_wait_for_the_figures():
    code = "import sys, medprism.report.page; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_split_or_phantom_means_is_written(tmp_path):
    out = evaluate(tmp_path / "evaluation", split="training", name="phantom-brain-A")
    words = Page(page([out], tmp_path / "report.html")).words
    assert "the model was trained on these subjects" in words
    assert "no clinical claim" in words


def test_several_runs_side_by_side(tmp_path, run):
    other = tmp_path / "other"
    evaluate(other / "evaluation", model_law=wrong, seed=7)
    found = Page(page([run, other], tmp_path / "report.html"))
    assert {"runs", "transfer-2-strict", "subjects-2"} <= {a["id"] for a in found.all("section")}
    assert "good" in found.words
    assert "PSNR − good" in found.words


def test_same_bytes_for_the_same_runs(run, tmp_path):
    assert page([run], tmp_path / "a.html") == page([run], tmp_path / "b.html")


def test_existing_file_is_kept_without_force(run, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("mine")
    with pytest.raises(UserError, match="--force"):
        report([run], out=out)
    assert out.read_text() == "mine"
    assert "<!doctype html>" in page([run], out, force=True)


@pytest.mark.parametrize("runs", [[], ["nowhere"], ["empty"]])
def test_what_is_no_run_is_told(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected"):
        report([tmp_path / name for name in runs], out=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
