"""Fine-tuning with templates for absent scans, by the commands: the model, its use, resume, mistakes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import medprism
from medprism.cli import main
from medprism.errors import UserError
from medprism.evaluation.results import Results
from medprism.io.nifti import read_scan
from medprism.methods.masking import Masking
from medprism.methods.template_copies import CopiesConfig
from medprism.methods.template_training import TemplateSegmentation
from medprism.models.folder import load_card, person_digests
from medprism.models.segmenter import SegmenterConfig
from medprism.models.templates import FOLDER, Templates, load_beside
from tests.training.runs import MODALITIES, assert_same, leftovers, table
from tests.training.segmenting import SHAPE, SMALL, TEST, make_labelled, tune
from tests.training.templating import around, template_run

FAST = {
    "epochs": 1,
    "patches": replace(SMALL["patches"], per_subject=1, batch=4, validation=1),
    "segmenter": SegmenterConfig(combine="channels", deep_supervision=1),
}
WORDS = ["--network.width=4", "--network.levels=3", "--patches.size=16,16,16", "--patches.per-subject=1"]
WORDS += ["--patches.validation=1", "--epochs=1", "--compute.device=cpu", "--segmenter.combine=channels"]


@pytest.fixture(scope="module")
def templated(labelled, tmp_path_factory):
    """A model with templates of the cohort's modalities and another; do not change it."""
    run = tmp_path_factory.mktemp("templates") / "run"
    return template_run(labelled, run, around(labelled, ("mra", *MODALITIES)), SHAPE)


@pytest.fixture(scope="module")
def run(labelled, templated, tmp_path_factory):
    """Fine-tuned by the command; do not change it."""
    out = tmp_path_factory.mktemp("filled") / "run"
    words = ["finetune", "segment", "--data", str(labelled), "--out", str(out), *WORDS]
    assert main([*words, "--templates", str(templated), "--segmenter.deep_supervision=1"]) == 0
    return out


def test_a_run_is_a_model_with_the_templates_beside_it(run, templated):
    [row] = table(run)
    assert float(row["train/consistency"]) > 0
    assert "train/invariance" not in row
    card, theirs = load_card(run), load_card(templated)
    assert (card["fill"], card["templates"]) == ("templates", theirs["templates"])
    assert card["config"]["templates"] == theirs["templates"]
    assert card["config"]["copies"] == {"consistency": 0.1, "mask": {"kind": "grid", "ratio": 0.875, "block": 8}}
    assert set(theirs["training_persons"]) <= set(card["training_persons"])
    mine, others = Templates.load(run / "model" / FOLDER), Templates.load(templated / "model" / FOLDER)
    assert torch.equal(mine.volumes, others.volumes)
    assert load_beside(run).identity == card["templates"]
    assert leftovers(run) == []
    given = {tuple(one["given"]) for one in card["metrics"]["rows"] if one["group"] == "subset"}
    assert len(given) == 7


def test_persons_that_the_templates_have_seen_stay_seen(labelled, tmp_path):
    stranger = person_digests(["somebody else"])
    told = {"training_persons": stranger}
    init = template_run(labelled, tmp_path / "templates", around(labelled, MODALITIES), SHAPE, **told)
    made = tune(labelled, tmp_path / "run", templates=init, **FAST)
    assert set(stranger) < set(load_card(made)["training_persons"])


def test_it_is_evaluated_and_says_that_templates_fill(labelled, run, tmp_path, capsys):
    words = ["evaluate", str(run), "--data", str(labelled), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    results = Results.read(tmp_path / "out")
    assert results.head["fill"] == "absent scans are filled by templates"
    assert "absent scans are filled by templates" in capsys.readouterr().out
    assert len(results.select(group="subset", region="whole", metric="dice", method="model")) == 7


def test_it_segments_from_any_scans_and_says_what_was_filled(labelled, run, tmp_path, capsys):
    raw, out = labelled.parent / TEST, tmp_path / "seg.nii.gz"
    words = ["segment", str(run), "--image.t2w", str(raw / "t2w.nii.gz"), "--out", str(out), "--device", "cpu"]
    assert main(words) == 0
    told = json.loads((tmp_path / "seg.json").read_text())
    assert told["FilledByTemplates"] == told["AbsentModalities"] == ["t1n", "t2f"]
    assert capsys.readouterr().out.count("absent, filled by templates") == 2
    assert read_scan(out).array.shape == read_scan(raw / "t2w.nii.gz").array.shape
    every = {name: raw / f"{name}.nii.gz" for name in MODALITIES}
    assert medprism.load(run, "cpu").segment(every).sidecar["FilledByTemplates"] == []


def test_an_interrupted_run_goes_on_to_the_same_end(labelled, templated, tmp_path, monkeypatch):
    changes = {**FAST, "epochs": 2, "templates": templated}
    straight = tune(labelled, tmp_path / "straight", **changes)
    losses, steps = TemplateSegmentation.losses, []

    def stopping(*args):
        steps.append(args)
        if len(steps) == 2:
            raise RuntimeError("stopped")
        return losses(*args)

    monkeypatch.setattr(TemplateSegmentation, "losses", stopping)
    with pytest.raises(RuntimeError, match="stopped"):
        tune(labelled, tmp_path / "run", **changes)
    monkeypatch.undo()
    assert len(table(tmp_path / "run")) == 1
    assert_same(tune(labelled, tmp_path / "run", resume="auto", **changes), straight)
    other = template_run(labelled, tmp_path / "other", around(labelled, MODALITIES, seed=1), SHAPE)
    with pytest.raises(UserError, match="got other values: templates was"):
        tune(labelled, tmp_path / "run", resume="auto", **{**changes, "templates": other})


def test_fused_scans_and_a_start_from_the_same_run_train(labelled, templated, tmp_path):
    fused = {**FAST, "segmenter": SegmenterConfig(), "templates": templated, "init": templated, "part": "encoder"}
    card = load_card(tune(labelled, tmp_path / "run", **{**fused, "network": medprism.models.NetworkConfig()}))
    assert card["initialised_from"] == load_card(templated)["sha256"]
    assert card["fill"] == "templates"


def test_content_of_absent_scans_is_never_read(labelled, templated, tmp_path, monkeypatch):
    from medprism.data.batch import collate
    from medprism.training import patches as loaders

    def poisoned(samples):
        batch = collate(samples)
        batch.images[~batch.present], batch.foreground[~batch.present] = np.nan, True
        return batch

    clean = tune(labelled, tmp_path / "clean", templates=templated, **FAST)
    monkeypatch.setattr(loaders, "collate", poisoned)
    assert_same(tune(labelled, tmp_path / "poisoned", templates=templated, **FAST), clean)


def test_templates_without_a_modality(labelled, tmp_path):
    init = template_run(labelled, tmp_path / "templates", around(labelled, ("t1n", "t2w")), SHAPE)
    with pytest.raises(UserError, match="a template for each of t1n t2w t2f, got none for t2f, but those of t1n t2w"):
        tune(labelled, tmp_path / "run", templates=init, **FAST)


def test_templates_elsewhere(labelled, tmp_path):
    templates = around(labelled, MODALITIES)
    x, y, z = templates.grid.shape
    half = Templates(MODALITIES, templates.grid.crop((0, 0, 0), (x // 2, y, z)))
    init = template_run(labelled, tmp_path / "templates", half, SHAPE)
    with pytest.raises(UserError, match=r"scans of s\d within 5 mm of the templates' grid, got .* 1\d\.\d mm beyond"):
        tune(labelled, tmp_path / "run", templates=init, **FAST)
    assert not (tmp_path / "run").exists()


def test_templates_that_know_a_person_of_the_test_split(labelled, tmp_path):
    told = {"training_persons": person_digests([TEST])}
    init = template_run(labelled, tmp_path / "templates", around(labelled, MODALITIES), SHAPE, **told)
    with pytest.raises(UserError, match=rf"seen no person of the test split, got 1 .*{TEST}"):
        tune(labelled, tmp_path / "run", templates=init, **FAST)


def test_templates_of_otherwise_normalised_scans(labelled, templated, tmp_path):
    normalisers = load_card(templated)["normalisers"]
    normalisers["t2w"]["high"] = 0.5
    told = {"normalisers": normalisers}
    init = template_run(labelled, tmp_path / "templates", around(labelled, MODALITIES), SHAPE, **told)
    with pytest.raises(UserError, match="another normaliser for t2w"):
        tune(labelled, tmp_path / "run", templates=init, **FAST)


def test_altered_templates(labelled, templated, tmp_path):
    init = shutil.copytree(templated, tmp_path / "templates")
    around(labelled, ("mra", *MODALITIES), seed=1).save(init / "model" / FOLDER, force=True)
    with pytest.raises(UserError, match="altered or are those of another model"):
        tune(labelled, tmp_path / "run", templates=init, **FAST)


def test_masks_are_checked_where_they_are_used(templated, labelled, tmp_path):
    odd = {**FAST, "templates": templated, "copies": CopiesConfig(mask=Masking(block=5))}
    with pytest.raises(UserError, match="a crop that blocks of 5 voxels divide, got 16×16×16"):
        tune(labelled, tmp_path / "run", **odd)
    cache = make_labelled(tmp_path, holes=(MODALITIES, ("t1n", "t2w")))  # nobody has a single scan
    other = template_run(cache, tmp_path / "templates", around(cache, MODALITIES), SHAPE)
    patches = replace(FAST["patches"], batch=2)
    tune(cache, tmp_path / "run", **{**odd, "templates": other, "patches": patches})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--copies.consistency 0.2", "expected --templates, a run with templates, with --copies, got none"),
        ("--templates {plain}", "a model with templates, got"),
        ("--templates nowhere", "does not exist"),
        ("--templates {templated} --segmentation.full 0.5", "0 with --templates"),
        ("--templates {templated} --copies.consistency -1", "0 or more for copies.consistency"),
        ("--templates {templated} --copies.mask.ratio 2", "a share above 0 and below 1 for copies.mask.ratio"),
        ("--templates {templated} --mmformer.width 4", "templates with a prism, got them with mmformer"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_made(labelled, templated, tmp_path, capsys, words, told):
    plain = template_run(labelled, tmp_path / "plain", None, SHAPE)
    given = words.format(plain=plain, templated=templated).split()
    command = ["finetune", "segment", "--data", str(labelled), "--out", str(tmp_path / "run")]
    assert main([*command, *(WORDS if "mmformer" not in words else WORDS[2:-1]), *given]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected ")
    assert told in line
    assert not (tmp_path / "run").exists()
