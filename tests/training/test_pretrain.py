"""Training on cohorts with holes, in bf16, with workers; mistakes are told in one line and leave nothing behind."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

import medprism
from medprism.cli import main
from medprism.data.batch import collate
from medprism.methods.puir import PUIRConfig
from medprism.training import patches as loaders
from medprism.training.fit import Compute
from medprism.training.patches import PatchConfig
from tests.training.runs import MODALITIES, SMALL, make_cache, table, train

FAST = {"epochs": 1, "patches": PatchConfig(size=(16, 16, 16), per_subject=1, batch=4, validation=1)}


def weights(run):
    return load_file(run / "model/model.safetensors")


def assert_equal_weights(run, other):
    one, two = weights(run), weights(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_content_of_absent_scans_is_never_read(cache, tmp_path, monkeypatch):
    def poisoned(samples):
        batch = collate(samples)
        batch.images[~batch.present], batch.foreground[~batch.present] = math.nan, True
        return batch

    clean = train(cache, tmp_path / "clean", **FAST)
    monkeypatch.setattr(loaders, "collate", poisoned)
    assert_equal_weights(train(cache, tmp_path / "poisoned", **FAST), clean)


def test_loader_processes_give_the_same_stream(cache, tmp_path):
    alone = train(cache, tmp_path / "alone", **{**FAST, "epochs": 2})
    helped = PatchConfig(**{**vars(FAST["patches"]), "workers": 2})
    run = train(cache, tmp_path / "helped", epochs=2, patches=helped)
    assert_equal_weights(run, alone)


@pytest.mark.parametrize("schedule", ["batched", "sequential"])
def test_bf16_stays_finite_and_near_float32(cache, tmp_path, schedule):
    puir = PUIRConfig(embedding=16, schedule=schedule)
    runs = {
        precision: train(cache, tmp_path / precision, puir=puir, compute=Compute("cpu", precision=precision), epochs=2)
        for precision in ("32", "bf16")
    }
    for exact, rounded in zip(table(runs["32"]), table(runs["bf16"]), strict=True):
        for name in ("train/loss", "train/contrastive", "train/invariance", "val/psnr"):
            assert float(rounded[name]) == pytest.approx(float(exact[name]), rel=0.05), name
    assert all(tensor.isfinite().all() for tensor in weights(runs["bf16"]).values())
    assert all(tensor.dtype == torch.float32 for tensor in weights(runs["bf16"]).values())


def test_a_modality_that_no_training_subject_has(tmp_path):
    cache = make_cache(tmp_path, holes=(("t1n", "t2w"), ("t1n",), ("t2w",), ("t1n", "t2w")))
    run = train(cache, tmp_path / "run", **FAST)
    assert all(math.isfinite(float(value)) for value in table(run)[0].values())
    model = medprism.load(run, "cpu")
    assert model.modalities == MODALITIES
    images, present = torch.randn(3, 16, 16, 16).numpy(), torch.tensor([True, False, False]).numpy()
    assert torch.from_numpy(model.predict(images, present)).isfinite().all()


def test_without_a_pair_to_score_the_latest_weights_are_the_best(tmp_path):
    cache = make_cache(tmp_path, validation=("t1n",))
    run = train(cache, tmp_path / "run", **{**FAST, "epochs": 2})
    assert "val/psnr" not in table(run)[0]
    assert torch.load(run / "best.ckpt", weights_only=True)["epoch"] == 1
    assert medprism.load(run, "cpu").card["validation_psnr"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--patches.size 64,64,64", "lower the patch size"),
        ("--patches.size 16,24,16", "equal sides in X and Y"),
        ("--puir.rotations cube --patches.size 16,16,12", "three equal sides"),
        ("--patches.size 18,18,16", "multiples of 4"),
        ("--network.backbone swinunetr --network.width 12", "multiples of 32"),
        ("--patches.batch 1", "at least 2 sub-volumes"),
        ("--patches.batch 64", "lower the batch size"),
        ("--compute.devices 0", "at least 1 process"),
        ("--puir.schedule sequential --puir.anchor mean", "anchor=running"),
        ("--puir.anchor weighted", "a modality for puir.anchor_modality"),
        ("--puir.anchor modality --puir.anchor_modality pet", "one of t1n t2w t2f"),
        pytest.param(
            "--compute.device cuda",
            "CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_made(cache, tmp_path, capsys, words, told):
    run = tmp_path / "run"
    fitting = "--patches.size 16,16,16 --network.width 4 --network.levels 3 --epochs 1"
    assert main(f"pretrain --data {cache} --out {run} {fitting} {words}".split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected ")
    assert told in line
    assert not run.exists()


def test_a_cache_without_validation_split_is_refused(tmp_path, capsys):
    cache = make_cache(tmp_path, validation=())
    assert main(["pretrain", "--data", str(cache), "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "expected validation subjects in tiny, got none" in line
    assert not (tmp_path / "run").exists()


def test_swinunetr_is_not_trained_on_a_bottleneck_of_one_voxel(tmp_path, capsys):
    cache = make_cache(tmp_path, shape=(48, 48, 48), margin=20)
    words = "--network.backbone swinunetr --network.width 12 --patches.size 32,32,32 --epochs 1"
    assert main(f"pretrain --data {cache} --out {tmp_path / 'run'} {words}".split()) == 2
    assert "64 voxels or more to train swinunetr" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_in_the_way_survives_a_mistake_with_force(cache, straight, tmp_path, capsys):
    run = shutil.copytree(straight, tmp_path / "run")
    assert main(f"pretrain --data {cache} --out {run} --patches.size 64,64,64 --force".split()) == 2
    assert "lower the patch size" in capsys.readouterr().err
    assert len(table(run)) == SMALL["epochs"]


def test_the_anchors_weights_are_trained_and_kept_but_not_shipped(cache, tmp_path):
    puir = PUIRConfig(embedding=16, anchor="weighted", anchor_modality="t2f")
    run = train(cache, tmp_path / "run", **{**FAST, "puir": puir, "epochs": 2})
    found = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]["objective.alignment.weights"]
    moved = (found - torch.tensor([0.0, 0.0, 1.0])).abs()
    assert found.shape == (3,)
    assert bool((moved > 1e-5).all())
    assert bool((moved < 0.1).all())
    assert not any("alignment" in name for name in weights(run))
