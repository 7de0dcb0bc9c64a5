"""A run that was killed at any instant goes on to the very same weights, as if nothing had been."""

import shutil
import signal
import time

import numpy as np
import pytest
import torch
import yaml

import medprism
from medprism.errors import UserError
from medprism.methods.puir import PUIR, PUIRConfig
from medprism.training.fit import Compute
from tests.training.runs import assert_same, die, finish, leftovers, rows, start, train, train_worsening


@pytest.fixture
def copied(straight, tmp_path):
    return shutil.copytree(straight, tmp_path / "run")


def test_killed_before_each_step_and_file_of_an_epoch(cache, tmp_path):
    """The n-th process dies at its n-th step or file: every instant of the first epoch, which is the best, is hit."""
    run, straight, deaths = tmp_path / "run", tmp_path / "straight", 0
    assert finish(start(train_worsening, cache, straight)) == [0]
    assert float(rows(straight)[0]["val/psnr"]) > max(float(row["val/psnr"]) for row in rows(straight)[1:])
    while not (run / "done").exists():
        [code] = finish(start(die, PUIR, train_worsening, cache, run, deaths + 1, resume="auto"))
        assert code in (-signal.SIGKILL, 0)
        deaths += code != 0
    assert deaths > 10
    assert_same(run, straight)
    assert leftovers(run) == []


def test_killed_from_outside_after_two_epochs_and_at_odd_moments(cache, straight, tmp_path):
    run = tmp_path / "run"
    process = start(train, cache, run)
    while not (run / "metrics.csv").exists() or len(rows(run)) < 2:
        assert process.is_alive()
        time.sleep(0.002)
    process.kill()
    assert finish(process) == [-signal.SIGKILL]
    draw = np.random.default_rng(int(time.time()))  # another moment in each run of this test
    for _ in range(2):
        process = start(train, cache, run, resume="auto")
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        finish(process)
    assert finish(start(train, cache, run, resume="auto")) == [0]
    assert_same(run, straight)


def test_half_replaced_model_and_forgotten_parts_are_mended(cache, straight, copied):
    """As a kill leaves them: new weights beside the old card, temporary files of every writer."""
    (copied / "done").unlink()
    (copied / "model/model.safetensors").write_bytes(b"of another epoch")
    (copied / "model/.saving-abc").mkdir()
    (copied / "model/.saving-abc/model.json").write_text("{")
    for name in ("last.part", "best.part", ".metrics.csv.0123abcd.part", ".config.yaml.0123abcd.part"):
        (copied / name).write_bytes(b"half")
    assert finish(start(train, cache, copied, resume="auto")) == [0]
    assert_same(copied, straight)
    assert leftovers(copied) == []
    assert medprism.load(copied, "cpu").modalities == ("t1n", "t2w", "t2f")


def test_a_run_goes_on_with_checkpointing_as_without(cache, straight, tmp_path):
    """What spares memory changes neither the model nor what a run may be resumed with."""
    run = tmp_path / "run"
    assert finish(start(die, PUIR, train, cache, run, 9)) == [-signal.SIGKILL]
    assert finish(start(train, cache, run, compute=Compute("cpu", checkpointing=True), resume="auto")) == [0]
    assert_same(run, straight)


def test_killed_before_the_folder_had_a_configuration(cache, straight, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.yaml.0123abcd.part").write_text("epo")
    assert finish(start(train, cache, tmp_path / "run", resume="auto")) == [0]
    assert_same(tmp_path / "run", straight)


def test_a_finished_run_is_left_alone_and_says_so(cache, copied, caplog):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    with caplog.at_level("INFO", "medprism"):
        assert train(cache, copied, resume="auto") == copied
    assert f"{copied} is complete" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def test_another_configuration_is_refused_by_name(cache, copied):
    with pytest.raises(UserError) as told:
        train(cache, copied, resume="auto", epochs=5, puir=PUIRConfig(embedding=16, temperature=0.5))
    assert "puir.temperature was 0.1, is 0.5" in str(told.value)
    assert "epochs was 4, is 5" in str(told.value)
    assert "seed" not in str(told.value)


def test_a_run_in_the_way_is_kept_without_force_and_replaced_with_it(cache, copied):
    with pytest.raises(UserError, match="--resume auto, --force or another"):
        train(cache, copied)
    assert len(rows(copied)) == 4
    train(cache, copied, force=True, epochs=1, seed=9)
    assert len(rows(copied)) == 1
    assert yaml.safe_load((copied / "config.yaml").read_text())["seed"] == 9


def test_force_never_deletes_what_is_no_run(cache, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    for options in ({}, {"force": True}, {"resume": "auto"}, {"resume": "auto", "force": True}):
        with pytest.raises(UserError):
            train(cache, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="expected a folder"):
        train(cache, tmp_path / "thesis.tex")


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("damage", ["short", "flipped"])
def test_a_damaged_checkpoint_is_told_in_one_line(cache, copied, name, damage):
    (copied / "done").unlink()
    content = bytearray((copied / name).read_bytes())
    if damage == "short":
        del content[len(content) // 2 :]
    else:
        middle = len(content) // 2
        content[middle : middle + 500] = bytes(500)
    (copied / name).write_bytes(content)
    with pytest.raises(UserError, match=f"whole checkpoint, got a damaged .*{name}.* copy .* or begin anew"):
        train(cache, copied, resume="auto")


def test_the_best_checkpoint_takes_the_place_of_a_damaged_last_one(cache, straight, copied):
    """What the error advises: here the best epoch is the last."""
    (copied / "done").unlink()
    shutil.copyfile(copied / "best.ckpt", copied / "last.ckpt")
    assert finish(start(train, cache, copied, resume="auto")) == [0]
    assert_same(copied, straight)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(cache, tmp_path, monkeypatch):
    losses, epochs = PUIR.losses, []

    def diverging(self, network, batch, epoch, backward=None):
        epochs.append(epoch)
        found = losses(self, network, batch, epoch, backward)
        return {name: value * float("nan") for name, value in found.items()} if epoch == 2 else found

    monkeypatch.setattr(PUIR, "losses", diverging)
    with pytest.raises(UserError, match="finite loss, got nan in epoch 2; lower"):
        train(cache, tmp_path / "run")
    assert max(epochs) == 2
    state = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert state["epoch"] == 1
    assert all(value.isfinite().all() for value in state["state_dict"].values())
