"""Sweeps: which trainings they queue, what they refuse before the first, and every shipped one from end to end."""

import json
from pathlib import Path

import pytest

from medprism import sweep_jobs
from medprism.cli import main
from medprism.errors import UserError
from medprism.evaluation.results import Results
from medprism.options import known
from medprism.sweep_jobs import CLASSIFY, PRETRAIN, SEGMENT, TEACHER
from tests.sweeps import labelled_cache, shipped, tiny

BASE = {PRETRAIN: "sts", SEGMENT: "sts", CLASSIFY: "brain"}


def queue(variants, seeds=(0,), base=BASE, common=()):
    return list(sweep_jobs.queue(Path("cache"), Path("out"), base, variants, list(seeds), ["--resume=auto", *common]))


def places(jobs):
    return [(job.verb, str(job.arguments["out"].relative_to("out"))) for job in jobs]


def test_a_pretraining_is_run_once_for_all_that_start_from_it():
    jobs = queue(
        {
            "scratch": {SEGMENT: {"network.prior": "none"}},
            "encoder": {SEGMENT: {"part": "encoder"}, PRETRAIN: {}},
            "whole": {PRETRAIN: {}, SEGMENT: {}},
            "other": {PRETRAIN: {"puir.invariance": 0}, SEGMENT: {}},
        }
    )
    assert places(jobs) == [
        (SEGMENT, "scratch/seed-0/run"),
        (PRETRAIN, "encoder/seed-0/pretrain"),
        (SEGMENT, "encoder/seed-0/run"),
        (SEGMENT, "whole/seed-0/run"),
        (PRETRAIN, "other/seed-0/pretrain"),
        (SEGMENT, "other/seed-0/run"),
    ]
    starts = [job.arguments["init"] for job in jobs if job.verb == SEGMENT]
    shared, own = Path("out/encoder/seed-0/pretrain"), Path("out/other/seed-0/pretrain")
    assert starts == [None, shared, shared, own]
    assert [job.place is None for job in jobs] == [job.verb == PRETRAIN for job in jobs]
    assert jobs[0].arguments["network"].prior == "none"
    assert jobs[4].arguments["puir"].invariance == 0


def test_templates_are_those_of_the_variants_own_pretraining():
    jobs = queue({"filled": {PRETRAIN: {}, SEGMENT: {"templates": PRETRAIN}}, "plain": {PRETRAIN: {}, SEGMENT: {}}})
    pretrained = Path("out/filled/seed-0/pretrain")
    found = [(job.arguments["init"], job.arguments["templates"]) for job in jobs if job.verb == SEGMENT]
    assert found == [(pretrained, pretrained), (pretrained, None)]
    found = queue({"told": {PRETRAIN: {}, CLASSIFY: {"templates": PRETRAIN}}})[-1].arguments
    assert found["init"] == found["templates"] == Path("out/told/seed-0/pretrain")
    [elsewhere] = queue({"filled": {SEGMENT: {"templates": "run"}}})
    assert elsewhere.arguments["templates"] == Path("run")


def test_each_seed_is_pretrained_unless_a_variant_fixes_it():
    whole = {PRETRAIN: {}, SEGMENT: {}}
    jobs = queue({"whole": whole}, seeds=(0, 1))
    assert [(job.verb, job.arguments["seed"]) for job in jobs] == [
        (PRETRAIN, 0),
        (SEGMENT, 0),
        (PRETRAIN, 1),
        (SEGMENT, 1),
    ]
    jobs = queue({"whole": {**whole, PRETRAIN: {"seed": 7}}}, seeds=(0, 1))
    assert [(job.verb, job.arguments["seed"]) for job in jobs] == [(PRETRAIN, 7), (SEGMENT, 0), (SEGMENT, 1)]
    assert jobs[1].arguments["init"] == jobs[2].arguments["init"]


def test_a_pretraining_that_is_a_variant_itself_is_not_run_again():
    jobs = queue({"transfer": {PRETRAIN: {}}, "whole": {PRETRAIN: {}, SEGMENT: {}}})
    assert places(jobs) == [(PRETRAIN, "transfer/seed-0/run"), (SEGMENT, "whole/seed-0/run")]
    assert jobs[1].arguments["init"] == Path("out/transfer/seed-0/run")


def test_a_student_is_trained_by_its_teacher_which_is_trained_once():
    base = {TEACHER: "pmkl-teacher", SEGMENT: "pmkl-student"}
    aligned = {"medmap.encoder": "shared", "medmap.anchor": "mean"}
    jobs = queue(
        {
            "teacher": {TEACHER: {}},
            "t1n": {TEACHER: {}, SEGMENT: {"student.given": "t1n"}},
            "t2w": {TEACHER: {}, SEGMENT: {"student.given": "t2w"}},
            "aligned": {TEACHER: aligned, SEGMENT: {}},
            "mmformer": {SEGMENT: {"config": "mmformer"}},
        },
        base=base,
    )
    assert places(jobs) == [
        (SEGMENT, "teacher/seed-0/run"),
        (SEGMENT, "t1n/seed-0/run"),
        (SEGMENT, "t2w/seed-0/run"),
        (SEGMENT, "aligned/seed-0/teacher"),
        (SEGMENT, "aligned/seed-0/run"),
        (SEGMENT, "mmformer/seed-0/run"),
    ]
    masters = [job.arguments["taught_by"] for job in jobs]
    shared, own = Path("out/teacher/seed-0/run"), Path("out/aligned/seed-0/teacher")
    assert masters == [None, shared, shared, None, own, None]
    assert [job.stage for job in jobs] == [1, 2, 2, 1, 2, 2]
    assert jobs[1].arguments["student"].given == ("t1n",)
    assert jobs[5].arguments["mmformer"].width == 8
    assert jobs[3].arguments["medmap"].anchor == "mean"


def test_a_pretraining_is_shared_by_what_segments_and_what_classifies():
    both = {"maps": {PRETRAIN: {}, SEGMENT: {}}, "classes": {PRETRAIN: {}, CLASSIFY: {"fraction": 0.5}}}
    jobs = queue({**both, "scratch": {CLASSIFY: {"network.prior": "none"}}})
    assert places(jobs) == [
        (PRETRAIN, "maps/seed-0/pretrain"),
        (SEGMENT, "maps/seed-0/run"),
        (CLASSIFY, "classes/seed-0/run"),
        (CLASSIFY, "scratch/seed-0/run"),
    ]
    assert [job.arguments["init"] for job in jobs[1:]] == [*2 * [Path("out/maps/seed-0/pretrain")], None]
    assert [job.arguments["fraction"] for job in jobs[1:]] == [1.0, 0.5, 1.0]
    assert all(job.stage > jobs[0].stage for job in jobs[1:])


def test_what_a_variant_says_wins_over_the_sweep():
    [first, second] = queue({"a": {SEGMENT: {"epochs": 2}}, "b": {SEGMENT: {}}}, common=["--epochs=5"])
    assert (first.arguments["epochs"], second.arguments["epochs"]) == (2, 5)


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ({"finetune": {}}, "got finetune"),
        ({}, "got none"),
        ({SEGMENT: None}, "as in `finetune segment: {}`"),
        ({SEGMENT: {"segmenter.colour": 1}}, "colour"),
        ({SEGMENT: {"out": "x"}}, "got out"),
        ({PRETRAIN: {}, SEGMENT: {"init": "x"}}, "got init"),
        ({PRETRAIN: {}, TEACHER: {}, SEGMENT: {}}, "got"),
        ({SEGMENT: {}, CLASSIFY: {}}, "got finetune segment and finetune classify; make two variants"),
        ({CLASSIFY: {"segmenter.combine": "fused"}}, "segmenter"),
        ({PRETRAIN: {}, CLASSIFY: {"init": "x"}}, "got init"),
    ],
)
def test_variants_that_cannot_be_are_refused(variant, told):
    with pytest.raises(UserError, match=told):
        queue({"odd": variant})


def test_a_command_without_base_is_refused():
    with pytest.raises(UserError, match="each with a base"):
        queue({"whole": {PRETRAIN: {}, SEGMENT: {}}}, base={PRETRAIN: "sts"})


@pytest.mark.parametrize(
    ("name", "verb", "wanted"),
    [("labels", SEGMENT, [0.2, 0.4, 0.6, 0.8, 1.0]), ("labels-classify", CLASSIFY, [0.2, 0.6, 1.0])],
)
def test_label_efficiency_changes_the_share_alone_and_not_the_number_of_steps(name, verb, wanted):
    variants = shipped(name)["variants"]
    queued = queue(variants, base=shipped(name)["base"])
    jobs = [job for job in queued if job.verb == verb]
    shares = [job.arguments["fraction"] for job in jobs]
    assert shares == 2 * wanted
    patches = [job.arguments["patches"].per_subject for job in jobs]
    whole = patches[-1]
    assert [share * count for share, count in zip(shares, patches, strict=True)] == pytest.approx(
        [whole] * len(jobs), rel=0.1
    )
    for method in (jobs[: len(wanted)], jobs[len(wanted) :]):
        same = [{**job.arguments, "fraction": 0, "out": 0, "patches": job.arguments["patches"].size} for job in method]
        assert len({repr(each) for each in same}) == 1
    assert len([job for job in queued if job.verb == PRETRAIN]) == 1


def test_rows_of_table_7_pretrain_as_those_of_table_4():
    four, seven = shipped("table4")["variants"], shipped("table7")["variants"]
    assert {name: stages[PRETRAIN] for name, stages in seven.items()} == four


def test_medmaps_sweeps_differ_in_the_anchors_modality_and_the_crops_height_alone():
    brain, sts = (json.dumps(shipped(f"medmap-{name}")) for name in ("brain", "sts"))
    assert brain.replace('"t2f"', '"pet"').replace("[32, 32, 32]", "[32, 32, 16]") == sts
    assert brain != sts


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return labelled_cache(tmp_path_factory.mktemp("labelled"))


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "config"), [(SEGMENT, "table6"), (CLASSIFY, "labels-classify")])
def test_missing_labels_and_classes_are_told_before_the_first_training(tmp_path, capsys, verb, config):
    lacking = {"unlabelled": (1,)} if verb == SEGMENT else {"unclassified": (1,)}
    data = labelled_cache(tmp_path, training=2, **lacking)
    config = tiny(config, tmp_path)
    assert main(["sweep", "--config", str(config), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert "s1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*known("sweep")} - {"medmap-brain"}))
def test_every_shipped_sweep_runs_and_goes_on(name, cache, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sweep", "--config", str(tiny(name, tmp_path)), "--data", str(cache), "--out", str(out)]
    words += ["--epochs", "1", "--device", "cpu"]
    words += ["--workers", "2"] if name in ("table6", "medmap-sts") else []
    assert main(words) == 0
    told = capsys.readouterr().out
    assert ("mmformer+leak (leaks)" in told) == (name == "medmap-sts")
    variants = shipped(name)["variants"]
    task = {SEGMENT: "segmentation", CLASSIFY: "classification"}.get([*shipped(name)["base"]][-1], "transfer")
    for variant in variants:
        assert variant in told
        assert Results.read(out / variant / "seed-0" / "evaluation").head["task"] == task
    first = next(iter(variants))
    assert f"− {first}" in told
    page = (out / "report.html").read_text()
    assert ("Label efficiency" in page) == (name in ("labels", "labels-classify"))
    assert ("TPR ↑" in told) == (task == "segmentation")
    assert ("balanced ACC ↑" in told) == (task == "classification")
    if name == "table6":
        starts = {
            variant: json.loads((out / variant / "seed-0/run/model/model.json").read_text()) for variant in variants
        }
        shared = json.loads((out / "encoder/seed-0/pretrain/model/model.json").read_text())["sha256"]
        assert [starts[v]["initialised_from"] for v in ("scratch", "encoder", "whole")] == [None, shared, shared]
        assert not (out / "whole/seed-0/pretrain").exists()
        lost = out / "whole/seed-0/evaluation/metrics.json"
        before = lost.read_text()
        lost.unlink()
        weights = out / "whole/seed-0/run/model/model.safetensors"
        made = weights.stat().st_mtime_ns
        assert main(words) == 0
        assert weights.stat().st_mtime_ns == made
        assert json.loads(lost.read_text())["rows"] == json.loads(before)["rows"]
