"""Parameters that an objective wants neither decayed nor clipped: templates, through kills and on two processes."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medprism.training.methods as verb
from medprism.methods.puir import PUIR, PUIRConfig
from medprism.models import NetworkConfig, Prism
from medprism.models.atlas import box_grid
from medprism.models.templates import Templates
from medprism.training.module import OptimiserConfig, Training
from medprism.training.patches import PatchConfig
from tests.training.runs import die, finish, start, train, train_together, train_worsening

GRID = box_grid((-20, 0, 0), (32, 36, 30), 4.0)  # the cohort's heads and, from −20 to −5 mm, nothing
NAME = "objective.templates.volumes"


class WithTemplates(PUIR):
    """PUIR, beside which templates learn to be the scans; each process leaves them as they were at its last step."""

    folder = Path()

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.templates = Templates(self.modalities, GRID, seed=self.seed)
        self.unregularised, self.unregularised_rate = (self.templates.volumes,), 10.0

    def losses(self, network, batch, epoch, backward=None):
        torch.save(self.templates.volumes.detach(), self.folder / f"templates-{os.environ.get('RANK', 0)}.pt")
        parts = []
        found = super().losses(network, batch, epoch, parts.append)
        row, modality = batch.present.nonzero(as_tuple=True)
        error = (
            self.templates(batch.affine[row], tuple(batch.images.shape[2:]), modality)
            - batch.images[row, modality][:, None]
        )
        learnt = error.square().sum() / len(batch)
        backward(learnt + sum(parts))
        return found | {"templates": learnt.detach()}


def train_templates(cache: Path, out: Path, **changes) -> None:
    verb.PUIR, WithTemplates.folder = WithTemplates, out.parent
    train(cache, out, **changes)


def die_with_templates(cache: Path, out: Path, at: int) -> None:
    verb.PUIR, WithTemplates.folder = WithTemplates, out.parent
    die(PUIR, train_worsening, cache, out, at, resume="auto")


def last(run):
    return torch.load(run / "last.ckpt", weights_only=True)


def test_templates_are_a_group_of_their_own():
    network = Prism(NetworkConfig(width=4, levels=2), 3, (16, 16, 16))
    objective = WithTemplates(PUIRConfig(embedding=8), 8, ("t1n", "t1c", "t2w"), 0)
    module = Training(network, objective, OptimiserConfig(lr=0.5, weight_decay=0.25, warmup=0.5), steps=4)
    chosen = module.configure_optimizers()
    trained, free = chosen["optimizer"].param_groups
    assert [id(p) for p in free["params"]] == [id(objective.templates.volumes)]
    assert len(trained["params"]) == len(list(module.parameters())) - 1
    assert (trained["weight_decay"], free["weight_decay"]) == (0.25, 0.0)
    assert (trained["lr"], free["lr"]) == (0.25, 2.5)  # half of the peak, in the first of two steps of warm-up
    del objective.unregularised_rate
    assert [group["lr"] for group in module.configure_optimizers()["optimizer"].param_groups] == [0.25, 0.25]
    objective.templates.requires_grad_(False)  # as in fine-tuning
    assert len(module.configure_optimizers()["optimizer"].param_groups) == 1


@pytest.mark.slow
def test_they_do_not_disturb_the_network_and_are_not_decayed(cache, tmp_path):
    """Clipped to little, the network learns bit for bit what it learns alone; voxels without scans stay as begun."""
    changes = {"optimiser": OptimiserConfig(lr=1e-3, weight_decay=0.5, clip=0.01), "epochs": 2}
    assert finish(
        start(train, cache, tmp_path / "alone", **changes), start(train_templates, cache, tmp_path / "both", **changes)
    ) == [0, 0]
    alone, both = (load_file(tmp_path / name / "model/model.safetensors") for name in ("alone", "both"))
    assert all(torch.equal(alone[name], both[name]) for name in alone)
    begun, learnt = Templates(("t1n", "t2w", "t2f"), GRID, seed=3).volumes, last(tmp_path / "both")["state_dict"][NAME]
    assert torch.equal(learnt[:, :4], begun[:, :4])
    moved = (learnt - begun).detach()[:, 7:11, 3:7, 3:5].abs()
    assert moved.all()
    assert float(moved.mean()) > 0.01


@pytest.mark.slow
def test_killed_and_resumed_they_are_the_same_bit_for_bit(cache, tmp_path):
    straight, run = tmp_path / "straight/run", tmp_path / "killed/run"
    straight.parent.mkdir()
    run.parent.mkdir()
    assert finish(start(train_templates, cache, straight)) == [0]
    for at in (9, 13):
        assert finish(start(die_with_templates, cache, run, at)) == [-signal.SIGKILL]
    assert finish(start(train_templates, cache, run, resume="auto")) == [0]
    one, two = last(straight), last(run)
    assert torch.equal(one["state_dict"][NAME], two["state_dict"][NAME])
    moments = [state["optimizer_states"][0]["state"] for state in (one, two)]
    assert all(torch.equal(moments[0][n]["exp_avg"], moments[1][n]["exp_avg"]) for n in moments[0])
    assert [len(group["params"]) for group in one["optimizer_states"][0]["param_groups"]][1:] == [1]


@pytest.mark.slow
def test_two_processes_keep_them_equal(cache, tmp_path):
    one, two = tmp_path / "one/run", tmp_path / "two/run"
    one.parent.mkdir()
    two.parent.mkdir()
    patches = PatchConfig(size=(16, 16, 16), per_subject=1, batch=4, validation=1)
    assert finish(start(train_templates, cache, one, patches=patches)) == [0]
    assert train_together(2, cache, two, task=train_templates, patches=replace(patches, batch=2)) == [0, 0]
    ranks = [torch.load(two.parent / f"templates-{rank}.pt") for rank in range(2)]
    assert torch.equal(*ranks)
    assert not torch.equal(ranks[0], last(two)["state_dict"][NAME])  # the last step came after
    torch.testing.assert_close(last(one)["state_dict"][NAME], last(two)["state_dict"][NAME], rtol=0, atol=1e-4)
