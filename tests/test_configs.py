"""Every shipped configuration is found by its name, parses, and trains a step."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import medprism
from medprism.cli import VERBS, _load, main
from medprism.methods.brainmvp import BrainMVPConfig
from medprism.methods.masking import Masking
from medprism.methods.puir import PUIRConfig
from medprism.models.folder import load_card
from medprism.models.prism import NetworkConfig
from medprism.options import parse, parser_of
from tests.training.runs import make_cache, table

FOLDER = Path(medprism.__file__).parent / "configs"
SHIPPED = [(" ".join(path.relative_to(FOLDER).parts[:-1]), path.stem) for path in sorted(FOLDER.rglob("*.yaml"))]
PRETRAIN = [name for verb, name in SHIPPED if verb == "pretrain"]
ENDS = ["--data=cache", "--out=run"]


def content(verb, name):
    return yaml.safe_load(path_of(verb, name).read_text())


def path_of(verb, name):
    return FOLDER.joinpath(*verb.split(), f"{name}.yaml")


def flat(nested, prefix=""):
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def parsed(verb, words):
    return parse(parser_of(verb, _load(VERBS[verb].function), ""), verb, words)


def test_they_are_all_here():
    assert {"puir", "puir-release", "puir-swinunetr-small", "quickstart"} <= set(PRETRAIN)
    assert {"brainmvp", "brainmvp-release", "brainmvp-small"} <= set(PRETRAIN)
    assert {verb for verb, _ in SHIPPED} <= VERBS.keys()
    assert len(SHIPPED) == len([path for path in FOLDER.rglob("*") if path.is_file()])


@pytest.mark.parametrize(("verb", "name"), SHIPPED)
def test_found_by_name_and_parsed(verb, name):
    assert parsed(verb, ["--config", name, *ENDS]) == parsed(verb, [f"--config={path_of(verb, name)}", *ENDS])


@pytest.mark.parametrize("name", PRETRAIN)
def test_every_value_arrives_and_flags_win(name):
    values = parsed("pretrain", ["--config", name, *ENDS, "--optimiser.lr", "0.125"])
    for key, wanted in flat(content("pretrain", name)):
        found = values
        for part in key.split("."):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        wanted = 0.125 if key == "optimiser.lr" else wanted
        assert (list(found) if isinstance(wanted, list) else found) == wanted, key


@pytest.mark.parametrize("name", [name for verb, name in SHIPPED if verb == "sweep"])
def test_every_variant_of_a_sweep_has_options_of_its_commands(name):
    sweep = content("sweep", name)
    base = sweep["base"] if isinstance(sweep["base"], dict) else {"pretrain": sweep["base"]}
    for stages in sweep["variants"].values():
        for stage, changes in (stages if isinstance(sweep["base"], dict) else {"pretrain": stages}).items():
            words = [f"--{option}={value}" for option, value in changes.items() if option != "config"]
            verb = "finetune segment" if stage == "teacher" else stage
            parsed(verb, ["--config", changes.get("config", base[stage]), *ENDS, *words])


def test_puir_is_the_papers():
    values = parsed("pretrain", ["--config", "puir", *ENDS])
    network, puir = values["network"], values["puir"]
    assert (network.backbone, network.width, network.prior, network.source) == ("swinunetr", 48, "channel", "repeated")
    assert (values["patches"].size, values["optimiser"].lr, values["epochs"]) == ((96, 96, 96), 2e-4, 1000)
    assert {puir.contrastive, puir.decomposition, puir.equivariance, puir.invariance} == {1.0}
    assert (puir.temperature, puir.foreground, puir.rotations, puir.anchor) == (0.1, 10, "z", "running")
    assert replace(puir, schedule="batched") == PUIRConfig()  # the defaults are the paper's too
    assert round(values["optimiser"].warmup * values["epochs"]) == 50


def test_puir_release_differs_from_puir_where_it_says_so():
    ours, theirs = (dict(flat(content("pretrain", name))) for name in ("puir", "puir-release"))
    assert {key for key in theirs if theirs[key] != ours[key]} == {
        "puir.contrastive",
        "puir.corruption.swap",
        "network.fusion",
        "patches.batch",
        "optimiser.warmup",
        "epochs",
    }


def test_brainmvp_is_the_papers():
    values = parsed("pretrain", ["--config", "brainmvp", *ENDS])
    brainmvp = values["brainmvp"]
    assert values["network"] == NetworkConfig("uniformer", 64, 5, prior="none", norm="batch")
    assert brainmvp.mask == Masking("cubes", 0.875, 8)
    assert (brainmvp.reconstruction, brainmvp.distillation, brainmvp.contrast, brainmvp.each) == (1, 1, 1, "all")
    assert round(brainmvp.contrast_from * values["epochs"]) == 1000
    templates = replace(brainmvp.templates, spacing=2.0)
    assert replace(brainmvp, contrast_from=2 / 3, templates=templates) == BrainMVPConfig()  # the defaults are its too
    assert (values["optimiser"].lr, values["optimiser"].weight_decay, values["epochs"]) == (3e-4, 1e-5, 1500)


def test_brainmvp_release_differs_from_brainmvp_where_it_says_so():
    ours, theirs = (dict(flat(content("pretrain", name))) for name in ("brainmvp", "brainmvp-release"))
    assert {key.removeprefix("brainmvp.") for key in theirs if theirs[key] != ours[key]} == {
        "distillation",
        "cross_modal_from",
        "each",
        "mask.kind",
        "mask.ratio",
        "infonce.temperature",
        "infonce.pooled",
        "infonce.same_modality",
        "template_rate",
    }
    assert round(theirs["brainmvp.cross_modal_from"] * theirs["epochs"]) == 301


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("small"), holes=(("t1n", "t2w"), ("t2w",)))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two scans of 64 voxels a side to train on and one to look at."""
    holes = (("t1n",), ("t2w",))
    return make_cache(tmp_path_factory.mktemp("large"), holes, ("t1n",), shape=(64, 64, 64), margin=60)


def train(name, cache, out, *words, changed=()):
    """One epoch of one or two steps; all that is not about size is the configuration's own."""
    small = ["--epochs=1", "--patches.per-subject=1", "--patches.validation=1", "--compute.device=cpu"]
    assert main(["pretrain", "--config", name, "--data", str(cache), "--out", str(out), *small, *words]) == 0
    [row] = table(out)
    assert float(row["train/loss"]) > 0
    method = "brainmvp" if "brainmvp" in content("pretrain", name) else "puir"
    own, run = (dict(flat(made[method])) for made in (content("pretrain", name), load_card(out)["config"]))
    assert {key: own[key] for key in own if key not in changed} == {key: run[key] for key in own if key not in changed}


def with_backbone(backbone):
    return [name for name in PRETRAIN if content("pretrain", name)["network"]["backbone"] == backbone]


@pytest.mark.parametrize("name", with_backbone("unet"))
def test_unet_configurations_train(name, cache, tmp_path):
    train(name, cache, tmp_path / "run", "--patches.size=16,16,16", "--network.width=4", "--network.levels=3")


@pytest.mark.slow
@pytest.mark.parametrize("name", with_backbone("swinunetr"))
def test_swinunetr_configurations_train(name, large, tmp_path):
    train(name, large, tmp_path / "run", "--patches.size=64,64,64", "--network.width=12")


@pytest.mark.slow
@pytest.mark.parametrize("name", with_backbone("uniformer"))
def test_uniformer_configurations_train(name, large, tmp_path):
    words = ["--patches.size=32,32,32", "--network.width=8", "--patches.batch=2", "--brainmvp.templates.spacing=3"]
    train(name, large, tmp_path / "run", *words, changed={"templates.spacing"})
