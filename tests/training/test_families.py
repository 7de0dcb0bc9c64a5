"""The families of networks that MedMAP was shown on, by the same verb as everything else."""

import json

import numpy as np
import pytest
import torch

import medprism
from medprism.cli import main
from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.methods.segmentation import Segmentation
from medprism.models.folder import load_card, load_model
from tests.training.runs import HOLES
from tests.training.segmenting import MODALITIES, TEST, make_labelled
from tests.training.test_segment import equal

SMALL = [
    "--patches.size=16,16,16",
    "--patches.per-subject=1",
    "--patches.validation=1",
    "--patches.batch=2",
    "--compute.device=cpu",
]
NETWORK = {
    "mmformer": ["--mmformer.width=2", "--mmformer.dim=16", "--mmformer.heads=2", "--mmformer.mlp=16"],
    "pmkl-teacher": ["--teacher.width=4"],
    "pmkl-student": ["--student.width=4"],
    "acn": ["--acn.width=8"],
}
MEDMAP = ["--medmap.encoder", "shared", "--medmap.anchor", "weighted", "--medmap.modality", "FLAIR"]
LEAK = ["--medmap.encoder", "joint", "--medmap.leaks", "--medmap.anchor", "normal"]


def finetune(name, cache, out, *words, epochs=1):
    config = ["--config", name, *NETWORK[name], *SMALL, "--epochs", str(epochs)]
    return main(["finetune", "segment", "--data", str(cache), "--out", str(out), *config, *words])


@pytest.fixture(scope="module")
def taught(labelled, tmp_path_factory):
    """A teacher; do not change it."""
    run = tmp_path_factory.mktemp("taught") / "teacher"
    assert finetune("pmkl-teacher", labelled, run, *MEDMAP) == 0
    return run


def words_of(name, taught):
    return ["--taught-by", str(taught)] if name == "pmkl-student" else MEDMAP


@pytest.fixture(scope="module", params=["mmformer", "pmkl-student", "acn"])
def trained(request, labelled, taught, tmp_path_factory):
    """Two epochs of each family that serves all subsets; do not change it."""
    run = tmp_path_factory.mktemp("trained") / request.param
    assert finetune(request.param, labelled, run, *words_of(request.param, taught), epochs=2) == 0
    return run


def test_it_segments_by_the_command_from_any_scans_and_knows_what_to_expect(trained, labelled, tmp_path, capsys):
    model = medprism.load(trained, "cpu")
    assert model.takes == MODALITIES
    subsets = {tuple(row["given"]) for row in model.card["metrics"]["rows"] if row["group"] == "subset"}
    assert len(subsets) == 2 ** len(MODALITIES) - 1
    scan = labelled.parent / TEST / "t2w.nii.gz"
    assert main(["segment", str(trained), "--image.t2w", str(scan), "--out", str(tmp_path / "seg.nii.gz")]) == 0
    assert "t2w" in capsys.readouterr().out
    assert (tmp_path / "seg.nii.gz").exists()


def test_nothing_is_seen_of_absent_scans(trained):
    network, _ = load_model(trained)
    images = torch.randn(2, len(MODALITIES), 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_no_leak(network.segment, images)
        assert_no_leak(network.embed, images)


def test_a_teacher_sees_nothing_of_absent_scans(taught):
    network, _ = load_model(taught)
    with torch.no_grad():
        assert_no_leak(network.segment, torch.randn(1, len(MODALITIES), 16, 16, 16))


def test_the_card_says_whom_to_cite_and_who_taught(trained, taught):
    card = load_card(trained)
    assert "2408.09465" in card["citation"]
    own = load_card(taught)["sha256"] if trained.name == "pmkl-student" else None
    assert card.get("taught_by") == own
    assert "leaks" not in card


def test_resumed_after_an_interrupted_epoch_it_is_the_same(trained, labelled, taught, tmp_path, monkeypatch):
    name, run = trained.name, tmp_path / "run"
    words = words_of(name, taught)
    drawn, steps = Segmentation.subsets, iter(range(len(HOLES) // 2 + 1))  # the second epoch has begun

    def interrupted(*args):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return drawn(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Segmentation, "subsets", interrupted)
        assert finetune(name, labelled, run, *words, epochs=2) == 130
    assert (run / "last.ckpt").exists()
    assert finetune(name, labelled, run, *words, "--resume", "auto", epochs=2) == 0
    equal(run, trained)


@pytest.fixture(scope="module")
def leaking(labelled, tmp_path_factory):
    """mmFormer behind the suspect encoder; do not change it."""
    run = tmp_path_factory.mktemp("leaking") / "run"
    assert finetune("mmformer", labelled, run, *LEAK) == 0
    return run


def test_the_suspect_setting_fails_the_leak_test(leaking):
    network, card = load_model(leaking)
    assert card["leaks"] is True
    with torch.no_grad(), pytest.raises(AssertionError, match="expected"):
        assert_no_leak(network.segment, torch.randn(1, len(MODALITIES), 16, 16, 16))


def test_it_is_scored_as_it_works_and_every_table_says_so(leaking, labelled, tmp_path, capsys):
    out = tmp_path / "evaluation"
    assert main(["evaluate", str(leaking), "--data", str(labelled), "--out", str(out)]) == 0
    assert "leaks" in capsys.readouterr().out
    assert "leaks" in json.loads((out / "metrics.json").read_text())["leak"]
    assert main(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    assert 'class="leak"' in (tmp_path / "report.html").read_text()


def test_what_it_is_not_given_changes_what_it_says(leaking, trained):
    rng = np.random.default_rng(0)
    images, given = rng.normal(size=(3, 16, 16, 16)).astype(np.float32), np.array([True, False, False])
    other = images.copy()
    other[1:] += 1
    for path, differs in ((leaking, True), (trained, False)):
        model = medprism.load(path, "cpu")
        here = np.ones(3, bool) if differs else given
        first, second = (model.predict(scans, here, None, given) for scans in (images, other))
        assert (first.tobytes() != second.tobytes()) == differs


@pytest.mark.parametrize("name", ["pmkl-student", "acn"])
def test_a_network_of_one_subset_serves_it_alone(name, labelled, taught, tmp_path, capsys):
    run, group = tmp_path / "run", name.removeprefix("pmkl-")
    words = ["--taught-by", str(taught)] if group == "student" else []
    assert finetune(name, labelled, run, *words, f"--{group}.given", "T1,FLAIR", "--patches.batch=1") == 0
    card = load_card(run)
    assert card["sources"] == card["only"] == ["t1n", "t2f"]
    assert {tuple(row["given"]) for row in card["metrics"]["rows"] if row["group"] == "subset"} == {("t1n", "t2f")}
    scans = labelled.parent / TEST
    one = ["segment", str(run), "--image.t1n", str(scans / "t1n.nii.gz"), "--out", str(tmp_path / "seg.nii.gz")]
    capsys.readouterr()
    assert main(one) == 2
    assert "t1n" in capsys.readouterr().err
    assert main([*one, "--image.t2f", str(scans / "t2f.nii.gz")]) == 0
    assert main([*one, "--image.t2w", str(scans / "t2w.nii.gz"), "--force"]) == 2
    evaluation = ["evaluate", str(run), "--data", str(labelled), "--out", str(tmp_path / "ev"), "--subsets", "t1n"]
    capsys.readouterr()
    assert main(evaluation) == 2
    assert "t1n+t2f" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        (
            "mmformer",
            ["--medmap.encoder=shared", "--medmap.anchor=modality", "--medmap.modality=ct"],
            "the anchor's modality, got ct",
        ),
        ("mmformer", ["--medmap.encoder=shared", "--medmap.anchor=weighted"], "medmap.modality"),
        ("mmformer", ["--medmap.anchor=mean"], "an encoder beside an anchor"),
        ("mmformer", ["--medmap.encoder=shared", "--medmap.leaks"], "encoder=joint"),
        ("mmformer", ["--acn.width=4"], "at most one of"),
        ("mmformer", ["--init=somewhere"], "starts from nothing"),
        ("mmformer", ["--network.width=4"], "no options of a prism"),
        ("mmformer", ["--segmentation.dice=2"], "no options of a prism's loss"),
        ("mmformer", ["--patches.size=24,24,20"], "multiples of 16"),
        ("mmformer", ["--taught-by=somewhere"], "with a student"),
        ("pmkl-student", [], "--taught-by"),
        ("pmkl-student", ["--taught-by=nowhere"], "nowhere"),
        ("pmkl-student", ["--taught-by=nowhere", "--medmap.encoder=shared"], "give it to its teacher"),
        ("acn", ["--acn.given=ct"], "ct"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_made(labelled, tmp_path, capsys, name, words, told):
    run = tmp_path / "run"
    assert finetune(name, labelled, run, *words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected ")
    assert told in line
    assert not run.exists()


def test_medmap_is_refused_with_a_prism(labelled, tmp_path, capsys):
    words = ["finetune", "segment", "--data", str(labelled), "--out", str(tmp_path / "run"), *MEDMAP]
    assert main(words) == 2
    assert "puir.anchor" in capsys.readouterr().err


def test_a_teacher_that_is_none_or_of_others_is_refused(labelled, segmenter, taught, tmp_path, capsys):
    run = tmp_path / "run"
    assert finetune("pmkl-student", labelled, run, "--taught-by", str(segmenter)) == 2
    assert "expected a teacher of PMKL" in capsys.readouterr().err
    card = json.loads((taught / "model" / "model.json").read_text())
    assert list(MODALITIES) == card["modalities"]
    other = make_labelled(tmp_path / "other", regions={"whole": [1, 4]})
    reversed_ = tmp_path / "reversed"
    reversed_.mkdir()
    for file in (taught / "model").iterdir():
        (reversed_ / file.name).write_bytes(file.read_bytes())
    (reversed_ / "model.json").write_text(json.dumps({**card, "modalities": card["modalities"][::-1]}))
    assert finetune("pmkl-student", other, run, "--taught-by", str(reversed_)) == 2
    assert "error: expected " in capsys.readouterr().err
    assert not run.exists()


def test_a_student_is_not_resumed_without_its_teacher_or_with_another(labelled, taught, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    assert finetune("pmkl-student", labelled, run, "--taught-by", str(taught)) == 0
    assert finetune("pmkl-teacher", labelled, other, "--seed", "1") == 0
    capsys.readouterr()
    assert finetune("pmkl-student", labelled, run, "--taught-by", str(other), "--resume", "auto") == 2
    assert "taught_by" in capsys.readouterr().err
    assert finetune("pmkl-student", labelled, run, "--resume", "auto") == 2
    assert "--taught-by" in capsys.readouterr().err


def test_a_student_trains_on_those_who_have_what_it_needs(labelled, taught, tmp_path, caplog):
    run = tmp_path / "run"
    assert (
        finetune("pmkl-student", labelled, run, "--taught-by", str(taught), "--student.given=t2w", "--fraction=1") == 0
    )
    assert "2 of 4 training subjects lack some of t2w" in caplog.text


def test_unknown_networks_are_of_another_version():
    from medprism.models import build

    with pytest.raises(UserError, match="this version"):
        build({"patch_size": [16, 16, 16], "modalities": 2, "classes": 2, "alignment": {}, "other": {}})
