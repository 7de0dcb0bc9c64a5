"""Classification with templates for absent scans, by the commands."""

import json
from dataclasses import replace

import pytest
import torch

import medprism
from medprism import finetune
from medprism.cli import main
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.evaluation.results import Results
from medprism.methods.classification import ClassificationConfig
from medprism.methods.template_training import TemplateClassification
from medprism.models.folder import load_card
from medprism.models.templates import FOLDER, Templates
from tests.training.classifying import MODALITIES, SMALL, classify, make_classes
from tests.training.runs import assert_same, table
from tests.training.templating import around, template_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_classes(tmp_path_factory.mktemp("classes")).parent


@pytest.fixture(scope="module")
def templated(data):
    return template_run(data / "cache", data / "templated", around(data / "cache", MODALITIES), SMALL["network"])


@pytest.fixture(scope="module")
def run(data, templated):
    out = data / "run"
    words = ["--network.width=4", "--network.levels=3", "--network.source=tagged", "--patches.size=16,16,16"]
    words += ["--patches.validation=1", "--epochs=1", "--compute.device=cpu", "--templates", str(templated)]
    assert main(["finetune", "classify", "--data", str(data / "cache"), "--out", str(out), *words]) == 0
    return out


def test_a_run_is_a_model_with_the_templates_beside_it(run, templated):
    [row] = table(run)
    assert float(row["train/consistency"]) > 0
    assert "train/invariance" not in row
    card, theirs = load_card(run), load_card(templated)
    assert (card["fill"], card["templates"]) == ("templates", theirs["templates"])
    assert set(theirs["training_persons"]) <= set(card["training_persons"])
    assert torch.equal(*(Templates.load(one / "model" / FOLDER).volumes for one in (run, templated)))
    assert {tuple(one["given"]) for one in card["metrics"]["rows"]} >= {("t1n",), ("t2w",), ("t1n", "t2w")}


def test_it_classifies_from_any_scans_and_says_what_was_filled(data, run, tmp_path, capsys):
    image = ["--image.t1n", str(data / "s8" / "t1n.nii.gz")]
    assert main(["classify", str(run), *image, "--out", str(tmp_path / "a.json"), "--device", "cpu"]) == 0
    assert "absent, filled by templates" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["FilledByTemplates"] == ["t2w"]


def test_it_is_evaluated_and_says_that_templates_fill(data, run, tmp_path, capsys):
    words = ["evaluate", str(run), "--data", str(data / "cache"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    assert Results.read(tmp_path / "out").head["fill"] == "absent scans are filled by templates"
    assert "absent scans are filled by templates" in capsys.readouterr().out


def test_absent_content_is_never_read(data, run):
    model = medprism.load(run, "cpu")
    entry = Cache.open(data / "cache").subjects("test")[0]
    images = entry.images()[:, 6:22, 8:24, 5:21]
    assert_no_leak(lambda images, present: model.predict(images, present, affine=entry.affine), images)


def test_an_interrupted_run_goes_on_to_the_same_end(data, templated, tmp_path, monkeypatch):
    changes = {"templates": templated, "epochs": 2, "patches": replace(SMALL["patches"], per_subject=1, batch=3)}
    losses, steps = TemplateClassification.losses, []
    monkeypatch.setattr(finetune, "score_validation", lambda *_: None)
    straight = classify(data / "cache", tmp_path / "straight", **changes)

    def stopping(*args):
        steps.append(args)
        if len(steps) == 4:  # two an epoch
            raise RuntimeError("stopped")
        return losses(*args)

    with monkeypatch.context() as patched:
        patched.setattr(TemplateClassification, "losses", stopping)
        with pytest.raises(RuntimeError, match="stopped"):
            classify(data / "cache", tmp_path / "run", **changes)
    assert_same(classify(data / "cache", tmp_path / "run", resume="auto", **changes), straight)


def test_shares_of_full_subsets_mean_nothing_here(data, templated, tmp_path):
    with pytest.raises(UserError, match="0 with --templates"):
        classify(data / "cache", tmp_path / "run", templates=templated, classification=ClassificationConfig(full=0.5))
