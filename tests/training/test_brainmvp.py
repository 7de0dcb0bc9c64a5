"""BrainMVP's pre-training: what it leaves, that it goes on bit for bit, on two processes, and what starts from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

import medprism
from medprism.cli import main
from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.methods.brainmvp import BrainMVP, BrainMVPConfig
from medprism.methods.masking import Masking
from medprism.methods.puir import PUIRConfig
from medprism.models import NetworkConfig, Prism
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.folder import load_model
from medprism.models.segmenter import Segmenter, SegmenterConfig
from medprism.models.templates import Templates, TemplatesConfig, load_beside
from medprism.training.card import encoder_names
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from medprism.training.start import Start
from tests.training.runs import MODALITIES, assert_same, finish, leftovers, start, table, train, train_together
from tests.training.segmenting import tune

SHAPE = NetworkConfig(width=4, levels=3, prior="none")
SMALL = {
    "puir": PUIRConfig(),
    "brainmvp": BrainMVPConfig(
        mask=Masking("grid", 0.75, 4), contrast_from=0.5, templates=TemplatesConfig(spacing=3.0), template_rate=50.0
    ),
    "network": SHAPE,
    "patches": PatchConfig(size=(16, 16, 16), per_subject=1, batch=4, validation=1),
    "epochs": 2,
}
NAME = "objective.templates.volumes"


def brainmvp(cache, out, **changes):
    return train(cache, out, **{**SMALL, **changes})


@pytest.fixture(scope="module")
def encoder(labelled, tmp_path_factory):
    """Two epochs on the labelled cohort; do not change it."""
    return brainmvp(labelled, tmp_path_factory.mktemp("encoder") / "run")


def test_a_run_leaves_an_encoder_templates_and_their_picture(labelled, encoder):
    network, card = load_model(encoder)
    assert isinstance(network, Prism)
    assert card["task"] == "representation"
    assert card["architecture"]["outputs"] == 0
    assert set(card["encoder_keys"]) == set(load_file(encoder / "model/model.safetensors"))
    templates = load_beside(encoder)
    assert templates.modalities == tuple(sorted(MODALITIES))
    assert templates.identity == card["templates"]
    begun = Templates(MODALITIES, templates.grid, seed=3).volumes
    order = [MODALITIES.index(name) for name in templates.modalities]
    assert float((templates.volumes - begun[order]).detach().abs().mean()) > 0.02
    picture = imread(encoder / "templates.png")
    assert min(picture.shape[:2]) > 200
    assert float(np.std(picture[..., 0])) > 0.05
    first, second = table(encoder)
    assert first["train/contrast"] == first["train/contrast_accuracy"] == ""
    assert 0 <= float(second["train/contrast_accuracy"]) <= 1
    terms = sum(float(second[f"train/{name}"]) for name in ("reconstruction", "distillation", "contrast"))
    assert float(second["train/loss"]) == pytest.approx(terms, rel=1e-5)
    assert float(second["val/psnr"]) == pytest.approx(card["validation_psnr"]) or float(first["val/psnr"]) > 0
    assert leftovers(encoder) == []


def test_what_cannot_use_it_says_what_can(labelled, encoder, tmp_path, capsys):
    for words in (
        f"synthesize {encoder} --image.t1n x.nii.gz --target t2w --out {tmp_path / 'a'}",
        f"segment {encoder} --image.t1n x.nii.gz --out {tmp_path / 'b.nii.gz'}",
        f"classify {encoder} --image.t1n x.nii.gz --out {tmp_path / 'c.json'}",
        f"evaluate {encoder} --data {labelled} --out {tmp_path / 'd'}",
    ):
        assert main(words.split()) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "got one for representation" in line
        assert "use medprism finetune --init first, or medprism evaluate --representation" in line
    with pytest.raises(UserError, match=r"got one for representation in .*; use medprism finetune"):
        medprism.load(encoder)
    assert main(["info", str(encoder)]) == 0
    told = capsys.readouterr().out
    assert "representation" in told
    assert load_beside(encoder).identity[:16] in told


def assert_filled(network, run):
    """All of the encoder is the run's, in a network that has it under `prism.` or itself."""
    state, trained = network.state_dict(), load_file(run / "model/model.safetensors")
    before = "" if isinstance(network, Prism) else "prism."
    assert {name.removeprefix(before) for name in encoder_names(network)} == set(trained)
    assert all(torch.equal(state[before + name], tensor) for name, tensor in trained.items())


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_all_fine_tunings_start_from_its_encoder(labelled, encoder, part):
    cache = Cache.open(labelled)
    start = Start.of(encoder, part, NetworkConfig(), cache)
    assert (start.network, start.patch_size, start.part) == (SHAPE, (16, 16, 16), "encoder")
    for combine in ("fused", "channels"):
        segmenter = Segmenter(start.network, SegmenterConfig(combine=combine), 3, 3, (16, 16, 16))
        start.fill(segmenter)
        assert_filled(segmenter, encoder)
    classifier = Classifier(start.network, ClassifierConfig(), 3, 2, (16, 16, 16))
    start.fill(classifier)
    assert_filled(classifier, encoder)
    transfer = Prism(start.network, 3, (16, 16, 16))
    start.fill_encoder(transfer, MODALITIES)
    state, trained = transfer.state_dict(), load_file(encoder / "model/model.safetensors")
    same = [name for name, tensor in trained.items() if torch.equal(state[name], tensor)]
    assert set(trained) - set(same) == {"backbone.stem.weight"}  # shared evenly over the channels, see `grown`
    torch.testing.assert_close(state["backbone.stem.weight"].sum(dim=1), trained["backbone.stem.weight"].sum(dim=1))


@pytest.mark.parametrize("combine", ["fused", "channels"])
def test_segmentation_trains_from_it(labelled, encoder, tmp_path, combine):
    patches = PatchConfig(size=(16, 16, 16), per_subject=1, batch=4, validation=1)
    segmenter = SegmenterConfig(combine=combine)
    run = tune(
        labelled, tmp_path, init=encoder, segmenter=segmenter, network=NetworkConfig(), patches=patches, epochs=1
    )
    card = json.loads((run / "model/model.json").read_text())
    assert card["initialised_from"] == load_model(encoder)[1]["sha256"]
    assert float(table(run)[0]["train/loss"]) > 0


class StoppedError(Exception):
    pass


def stopping(monkeypatch, at: int) -> None:
    """Let the `at`-th step fail, as if the process had been killed before it."""
    losses, left = BrainMVP.losses, at

    def counted(*args, **kwargs):
        nonlocal left
        left -= 1
        if left < 0:
            raise StoppedError
        return losses(*args, **kwargs)

    monkeypatch.setattr(BrainMVP, "losses", counted)


@pytest.mark.parametrize("template", ["noise", pytest.param("mean", marks=pytest.mark.slow)])
def test_stopped_and_resumed_it_is_the_same_bit_for_bit(cache, tmp_path, monkeypatch, template):
    method = replace(SMALL["brainmvp"], templates=TemplatesConfig(start=template, spacing=3.0))
    changes = {"epochs": 3, "brainmvp": method}
    straight = brainmvp(cache, tmp_path / "straight", **changes)
    run = tmp_path / "run"
    for at in (1, 1):  # an epoch has one step
        with monkeypatch.context() as patch:
            stopping(patch, at)
            with pytest.raises(StoppedError):
                brainmvp(cache, run, resume="auto", **changes)
    assert len(table(run)) == 2
    brainmvp(cache, run, resume="auto", **changes)
    assert_same(run, straight)
    assert load_beside(run).identity == load_beside(straight).identity
    last = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (run, straight)]
    assert torch.equal(*(each["state_dict"][NAME] for each in last))
    [seen, wanted] = [each["callbacks"]["TemplateSnapshots"]["seen"] for each in last]
    assert list(seen) == list(wanted) == [0, 1, 2, 3]
    assert all(torch.equal(seen[epoch], wanted[epoch]) for epoch in seen)
    assert (run / "templates.png").read_bytes() == (straight / "templates.png").read_bytes()
    assert leftovers(run) == []


def test_templates_are_those_of_the_weights_that_are_shipped(cache, tmp_path):
    """Of three epochs the best is not the last; the card, the files and the checkpoint agree."""
    run = brainmvp(cache, tmp_path / "run", epochs=3, optimiser=OptimiserConfig(lr=1e-3))
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    templates = load_beside(run)
    order = [MODALITIES.index(name) for name in templates.modalities]
    assert torch.equal(templates.volumes, best[NAME][order])
    model = load_file(run / "model/model.safetensors")
    assert all(torch.equal(model[name], best[f"network.{name}"]) for name in model)


def test_the_score_is_of_the_encoder_that_the_decoder_goes_with(cache, tmp_path, monkeypatch):
    """Shipped is the average over steps, of which the decoder has none."""
    seen = []
    monkeypatch.setattr(BrainMVP, "scores", lambda _, network, batch: seen.append(network) or torch.ones(1))
    run = brainmvp(cache, tmp_path / "run", ship="last")
    last = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    model, name = load_file(run / "model/model.safetensors"), "backbone.stem.weight"
    assert torch.equal(last[f"averaged.module.{name}"], model[name])
    assert not torch.equal(last[f"network.{name}"], model[name])
    assert all(not isinstance(network, AveragedModel) for network in seen)
    assert len({id(network) for network in seen}) == 1
    assert torch.equal(seen[0].state_dict()[name], last[f"network.{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("each", ["all", "one"])
def test_two_processes_have_the_loss_and_gradients_of_one(cache, tmp_path, each):
    """One step on four sub-volumes of 3, 1, 2 and 1 scans: two processes differ in their pairs."""
    method = replace(SMALL["brainmvp"], each=each, contrast_from=0.0)
    changes = {**SMALL, "brainmvp": method, "epochs": 1, "optimiser": OptimiserConfig(lr=1e-3, clip=0)}
    one, two = tmp_path / "one", tmp_path / "two"
    assert finish(start(train, cache, one, **changes)) == [0]
    assert train_together(2, cache, two, **{**changes, "patches": replace(SMALL["patches"], batch=2)}) == [0, 0]
    [row], [other] = table(one), table(two)
    assert {"train/contrast", "train/distillation", "val/psnr"} <= row.keys()
    for name in row.keys() - {"seconds"}:
        assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-5), name
    last = [torch.load(run / "last.ckpt", weights_only=True) for run in (one, two)]
    states = [each["optimizer_states"][0]["state"] for each in last]
    assert states[0].keys() == states[1].keys()  # the same parameters had a gradient
    largest = 0.0
    for number, state in states[0].items():  # a tenth of the first gradient
        torch.testing.assert_close(state["exp_avg"], states[1][number]["exp_avg"], rtol=1e-4, atol=1e-6)
        if state["exp_avg"].shape == last[0]["state_dict"][NAME].shape:
            largest = float(state["exp_avg"].abs().max())
    assert largest > 1e-5  # of the templates


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--puir.rotations cube", "no options of PUIR"),
        ("--network.prior token", "a network without prior with brainmvp, got token; give --network.prior none"),
        ("--brainmvp.mask.block 5 --brainmvp.mask.kind grid", "blocks of 5 voxels divide, got 16×16×16"),
        ("--brainmvp.mask.block 20", "lower brainmvp.mask.block"),
        ("--patches.batch 1", "at least 2 sub-volumes to contrast"),
        ("--patches.size 18,18,16", "multiples of 4"),
        ("--brainmvp.templates.spacing 0", "a positive length in mm for brainmvp.templates.spacing"),
        ("--brainmvp.mask.ratio 1.5", "for brainmvp.mask.ratio, got 1.5"),
        ("--brainmvp.infonce.temperature 0", "for brainmvp.infonce.temperature, got 0.0"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_made(cache, tmp_path, capsys, words, told):
    run = tmp_path / "run"
    fitting = "--patches.size 16,16,16 --network.width 4 --network.levels 3 --epochs 1"
    line = f"pretrain --config brainmvp-small --data {cache} --out {run} {fitting} {words}"
    assert main(line.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected ")
    assert told in line
    assert not run.exists()


def test_without_a_configuration_the_prior_is_named(cache, tmp_path, capsys):
    words = f"pretrain --data {cache} --out {tmp_path / 'run'} --brainmvp.each one --patches.size 16,16,16"
    assert main(words.split()) == 2
    assert "without prior with brainmvp, got channel" in capsys.readouterr().err


def test_the_command_pre_trains_and_another_fine_tunes_and_reports(labelled, tmp_path, capsys):
    run, tuned, page = tmp_path / "run", tmp_path / "tuned", tmp_path / "report.html"
    small = "--patches.size 16,16,16 --patches.per-subject 1 --patches.validation 1 --epochs 1 --compute.device cpu"
    words = f"pretrain --config brainmvp-small --data {labelled} --out {run} {small} --network.width 4 --seed 3"
    assert main([*words.split(), "--network.levels", "3"]) == 0
    words = f"finetune segment --config brain --data {labelled} --init {run} --out {tuned} {small}"
    assert main(words.split()) == 0
    assert main(f"report {run} --out {page}".split()) == 0
    capsys.readouterr()
    assert "Templates of each modality along the training" in page.read_text()
    assert main(f"evaluate {run} --data {labelled} --out {tmp_path / 'e'} --representation".split()) == 2
    assert "at least two persons" in capsys.readouterr().err  # it is the cohort that does not fit, not the model
