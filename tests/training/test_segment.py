"""Fine-tuning for segmentation: the model that it makes, its starts, holes, labels, mistakes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import medprism
from medprism.cli import main
from medprism.data.batch import collate
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.evaluation.results import Results
from medprism.inference.segmentation import SegmentationModel
from medprism.models import NetworkConfig
from medprism.models.folder import load_card, person_digests
from medprism.options import CONFIGS
from medprism.training import patches as loaders
from medprism.training.segment import label_voxels
from tests.training.runs import MODALITIES, leftovers, table
from tests.training.segmenting import LABELS, REGIONS, SMALL, TEST, make_labelled, tune

FAST = {"epochs": 1, "patches": replace(SMALL["patches"], per_subject=1, batch=4)}
FROM_MODEL = {**FAST, "network": NetworkConfig()}
SHORT = ["--patches.size=16,16,16", "--patches.per-subject=1", "--patches.validation=1", "--epochs=1"]
SHORT += ["--compute.device=cpu"]
WORDS = ["--network.width=4", "--network.levels=3", *SHORT]


def weights(run):
    return load_file(run / "model/model.safetensors")


def equal(run, other):
    one, two = weights(run), weights(other)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_is_a_model_that_knows_what_to_expect(labelled, segmenter):
    assert len(table(segmenter)) == SMALL["epochs"]
    terms = {"train/loss", "train/dice", "train/cross_entropy", "train/invariance", "val/dice"}
    assert all(
        terms <= row.keys() and all(math.isfinite(float(row[name])) for name in terms) for row in table(segmenter)
    )
    assert leftovers(segmenter) == []
    model = medprism.load(segmenter, "cpu")
    assert isinstance(model, SegmentationModel)
    card = model.card
    assert (card["labels"], card["regions"], card["classes"]) == (LABELS, REGIONS, [0, 1, 4])
    assert (card["task"], card["patch_size"], card["initialised_from"]) == ("segmentation", [16, 16, 16], None)
    assert card["validation_dice"] == max(float(row["val/dice"]) for row in table(segmenter))
    assert card["config"]["segmenter"]["deep_supervision"] == 1
    whose = [entry.person for split in ("training", "validation") for entry in Cache.open(labelled).subjects(split)]
    assert card["training_persons"] == person_digests(whose)
    metrics = card["metrics"]
    assert (metrics["split"], metrics["split_hash"]) == ("validation", card["split_hash"])
    single = {tuple(row["given"]) for row in metrics["rows"] if row["group"] == "subset" and row["region"] == "core"}
    assert len(single) == 7
    assert set(model.expected(["t1n"])) == set(REGIONS)


def test_it_segments_by_the_command_from_any_scans(labelled, segmenter, tmp_path, capsys):
    raw = labelled.parent / TEST
    for names in (("t2w",), MODALITIES):
        out = tmp_path / f"{len(names)}.nii.gz"
        images = [word for name in names for word in (f"--image.{name}", str(raw / f"{name}.nii.gz"))]
        assert main(["segment", str(segmenter), *images, "--out", str(out), "--device", "cpu"]) == 0
        made = nib.load(out)
        assert made.shape == nib.load(raw / "t2w.nii.gz").shape
        assert set(np.unique(made.dataobj)) <= set(LABELS.values())
        told = json.loads(out.with_name(f"{len(names)}.json").read_text())
        assert set(told["ExpectedDice"]) == set(REGIONS)
    assert main(["synthesize", str(segmenter), *images, "--out", str(tmp_path / "scans")]) == 2
    assert "use medprism segment" in capsys.readouterr().err


def test_it_is_evaluated_by_the_command_on_persons_that_it_has_not_seen(labelled, segmenter, tmp_path):
    words = ["evaluate", str(segmenter), "--data", str(labelled), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    results = Results.read(tmp_path / "out")
    assert (results.head["task"], results.head["split"], results.head["subjects"]) == ("segmentation", "test", 1)
    assert len(results.select(group="subset", region="whole", metric="dice", method="model")) == 7
    assert load_card(segmenter)["metrics"]["split"] == "validation"  # the card keeps what it had


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_it_starts_from_a_pretrained_model(labelled, pretrained, tmp_path, part, caplog):
    with caplog.at_level("INFO", "medprism"):
        run = tune(labelled, tmp_path / "run", init=pretrained, part=part, **FROM_MODEL)
    assert f"{part}: " in caplog.text
    assert "matched (100.0 %)" in caplog.text
    card, theirs = load_card(run), load_card(pretrained)
    shape = {**theirs["architecture"]["network"], **({"prior": "none"} if part == "encoder" else {})}
    assert card["architecture"]["network"] == shape
    assert card["initialised_from"] == card["config"]["init"] == theirs["sha256"]
    assert card["config"]["part"] == part
    assert set(theirs["training_persons"]) <= set(card["training_persons"])
    assert not equal(run, tune(labelled, tmp_path / "nothing", **{**FAST, "epochs": 1}))


def test_the_start_counts_until_the_first_step(labelled, pretrained, tmp_path):
    """With a rate of nothing the encoder that comes out is the one that went in."""
    still = replace(SMALL["optimiser"], lr=1e-30, weight_decay=0.0)
    run = tune(labelled, tmp_path / "run", init=pretrained, optimiser=still, **FROM_MODEL)
    before, after = weights(pretrained), weights(run)
    for name in load_card(pretrained)["encoder_keys"]:
        assert torch.equal(after[f"prism.{name}"], before[name])


def test_persons_that_the_start_has_seen_stay_seen(labelled, pretrained, tmp_path):
    """A quarter of the labels: the others' scans were seen in pre-training all the same."""
    run = tune(
        labelled, tmp_path / "run", init=pretrained, fraction=0.25, **{**FROM_MODEL, "patches": SMALL["patches"]}
    )
    alone = tune(labelled, tmp_path / "alone", fraction=0.25, **{**FAST, "patches": SMALL["patches"]})
    assert set(load_card(run)["training_persons"]) == set(load_card(pretrained)["training_persons"])
    assert len(load_card(alone)["training_persons"]) == 2  # to train on, to choose by


def test_content_of_absent_scans_is_never_read_nor_the_global_random_state(labelled, tmp_path, monkeypatch):
    def poisoned(samples):
        batch = collate(samples)
        batch.images[~batch.present], batch.foreground[~batch.present] = math.nan, True
        return batch

    clean = tune(labelled, tmp_path / "clean", **FAST)
    monkeypatch.setattr(loaders, "collate", poisoned)
    torch.manual_seed(99)
    np.random.seed(99)
    assert equal(tune(labelled, tmp_path / "poisoned", **FAST), clean)


def test_loader_processes_give_the_same_stream(labelled, tmp_path):
    alone = tune(labelled, tmp_path / "alone", **{**FAST, "epochs": 2})
    helped = {"epochs": 2, "patches": replace(FAST["patches"], workers=2)}
    assert equal(tune(labelled, tmp_path / "helped", **helped), alone)


@pytest.mark.parametrize("combine", ["fused", "channels"])
def test_bf16_stays_near_float32(labelled, tmp_path, combine):
    changes = {**FAST, "segmenter": replace(SMALL["segmenter"], combine=combine)}
    rows = []
    for precision in ("32", "bf16"):
        compute = replace(SMALL["compute"], precision=precision)
        run = tune(labelled, tmp_path / precision, compute=compute, **changes)
        rows.append(table(run)[0])
        assert all(value.isfinite().all() and value.dtype == torch.float32 for value in weights(run).values())
    for name in ("train/loss", "train/dice", "train/cross_entropy"):
        assert float(rows[1][name]) == pytest.approx(float(rows[0][name]), rel=0.05), name


def test_without_regions_each_label_is_one(tmp_path):
    cache = make_labelled(tmp_path, holes=(MODALITIES, ("t1n",)), regions={}, without=("s3",))
    run = tune(cache, tmp_path / "run", **{**FAST, "patches": SMALL["patches"]})  # the test subject needs no label
    assert load_card(run)["regions"] == {"rim": [1], "core": [4]}


def test_what_is_learnt_is_seen_in_scans_of_others(labelled, tmp_path):
    """Lesions are bright: after some steps one is found in a person who was not there."""
    network, patches = NetworkConfig(width=8, levels=3, source="tagged"), replace(FAST["patches"], per_subject=4)
    changes = {"network": network, "patches": patches, "optimiser": replace(SMALL["optimiser"], lr=1e-2), "epochs": 20}
    model = medprism.load(tune(labelled, tmp_path / "run", **changes), "cpu")
    [entry] = Cache.open(labelled).subjects("test")
    truth, made = entry.label() > 0, {}
    for present in ((True, False, False), (True, True, True)):
        found = model.predict(entry.images(), np.array(present)).argmax(0) > 0
        made[present] = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert all(dice > 0.4 for dice in made.values()), made


def entry(subject, label, person=None):
    return SimpleNamespace(
        subject=subject, person=person or subject, labelled=label is not None, label=lambda: np.array(label)
    )


def splits(training, validation, labels=LABELS):
    return SimpleNamespace(labels=labels, subjects={"training": training, "validation": validation}.__getitem__)


def test_voxels_of_each_class_are_counted_in_the_training_subjects_that_are_used():
    used = [entry("a", [[0, 0, 1], [4, 4, 1]]), entry("b", [[0, 1, 1]])]
    cache = splits([*used, entry("c", [[4, 4, 4]])], [entry("d", [[0]])])
    assert label_voxels(cache, used) == ((0, 1, 4), (3, 4, 2))


@pytest.mark.parametrize("where", ["training", "validation"])
def test_subjects_without_label_are_named(where):
    good, bare = [entry("a", [[0, 1, 4]])], [entry(f"x{k}", None) for k in range(7)]
    training, validation = ([*good, *bare], good) if where == "training" else (good, bare)
    with pytest.raises(UserError, match="got none for x0, x1, x2, x3, x4 and 2 more; add them"):
        label_voxels(splits(training, validation), training)


def test_a_class_that_is_never_seen_is_named():
    training = [entry("a", [[0, 1, 1]])]
    with pytest.raises(UserError, match="every class in the training labels, got none of core; take it out"):
        label_voxels(splits(training, [entry("b", [[0, 4, 1]])]), training)
    more = [*training, entry("c", [[4]])]
    with pytest.raises(UserError, match="these are 1 of 2 subjects: give a larger --fraction"):
        label_voxels(splits(more, training), training)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--epochs 0", "1 or more for epochs"),
        ("--fraction 0", "a share above 0"),
        ("--fraction 1.5", "up to 1"),
        ("--part encoder", "a model to take the encoder of"),
        ("--init nowhere", "does not exist"),
        ("--patches.size 64,64,64", "lower the patch size"),
        ("--patches.size 18,18,16", "multiples of 4"),
        ("--patches.batch 64", "lower the batch size"),
        ("--patches.on_label 2", "a share from 0 to 1"),
        ("--segmenter.deep_supervision 2", "fewer than 2 coarser levels"),
        ("--segmentation.dice 0 --segmentation.cross_entropy 0", "a positive weight"),
        ("--network.backbone swinunetr --network.width 12", "multiples of 32"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_made(labelled, tmp_path, capsys, words, told):
    run = tmp_path / "run"
    assert main(["finetune", "segment", "--data", str(labelled), "--out", str(run), *WORDS, *words.split()]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected ")
    assert told in line
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--patches.size 18,18,16", "multiples of 4, got (18, 18, 16); change patches.size"),
        ("--network.width 8", "leave --network out"),
    ],
)
def test_mistakes_with_a_start(labelled, pretrained, tmp_path, capsys, words, told):
    run = tmp_path / "run"
    command = ["finetune", "segment", "--data", str(labelled), "--out", str(run), "--init", str(pretrained)]
    assert main([*command, "--epochs", "1", "--compute.device", "cpu", *words.split()]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line
    assert not run.exists()


def test_a_cohort_without_labels_is_refused(cache, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["finetune", "segment", "--data", str(cache), "--out", str(run), *WORDS]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "a label for every training and validation subject, got none for s0" in line
    assert not run.exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("finetune/segment/*.yaml")))
def test_every_shipped_configuration_trains_and_is_scored(labelled, tmp_path, name):
    """By the command; all that is not about size is the configuration's own."""
    run, own = tmp_path / "run", yaml.safe_load(Path(CONFIGS, f"finetune/segment/{name}.yaml").read_text())
    words = ["--data", str(labelled), *(WORDS if "segmenter" in own else SHORT)]
    if "student" in own:
        teacher = ["finetune", "segment", "--config", "pmkl-teacher", *words, "--out", str(tmp_path / "teacher")]
        assert main(teacher) == 0
        words += ["--taught-by", str(tmp_path / "teacher")]
    assert main(["finetune", "segment", "--config", name, *words, "--out", str(run)]) == 0
    [row] = table(run)
    assert float(row["train/loss"]) > 0
    card = load_card(run)
    assert card["metrics"]["rows"]
    small = {"size", "per_subject", "validation"}
    for part, values in own.items():
        if isinstance(values, dict):
            kept = {key: value for key, value in values.items() if part != "patches" or key not in small}
            assert kept.items() <= card["config"][part].items()
