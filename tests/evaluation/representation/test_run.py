import json
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from medprism.errors import UserError
from medprism.evaluation.evaluate import evaluate
from medprism.evaluation.representation.run import evaluate_representation
from medprism.evaluation.representation.tables import MEASURES
from medprism.evaluation.results import Results, read_scores
from medprism.models import NetworkConfig, Prism
from medprism.models.folder import save_model
from tests.evaluation.fakes import FakeModel, cohort, entry, law

PATCH = (8, 8, 8)


@pytest.fixture(scope="module")
def cache():
    made = cohort(noise=0.3)
    made.splits["test"][1] = entry("test-1", present=(True, False, True))
    return made


@pytest.fixture(scope="module")
def model(cache, tmp_path_factory):
    torch.manual_seed(1)
    network = Prism(NetworkConfig(width=4, levels=3, source="tagged"), 3, PATCH)
    scales = {name: scale.to_dict() for name, scale in cache.subjects("training")[0].scales.items()}
    card = {**FakeModel(cache, law).card, "architecture": network.architecture, "patch_size": PATCH}
    return save_model(tmp_path_factory.mktemp("run") / "model", network, {**card, "typical_scales": scales})


def run(model, cache, out, **keys):
    told = Console(file=StringIO(), width=200)
    evaluate_representation(model, cache, out=out, device="cpu", console=told, **keys)
    return told.file.getvalue()


@pytest.fixture(scope="module")
def done(model, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "representation"
    return out, run(model, cache, out)


def test_every_measure_is_in_the_table_and_in_the_file(done):
    out, told = done
    results = Results.read(out)
    assert results.head["task"] == "representation"
    assert (results.head["subjects"], results.head["persons"], results.head["crops"]) == (4, 4, 16)
    assert {row.metric for row in results.rows} == set(MEASURES)
    assert {row.method for row in results.rows} == {"model", "untrained", "chance"}
    assert {row.region for row in results.rows} == {"z", "x_h"}
    assert all(row.n + row.n_empty == 4 for row in results.rows)
    for name in MEASURES.values():
        assert name in told
    assert "t1n – t1c" in told
    assert {score.metric for score in read_scores(out)} >= {"person_top1", "rotation_accuracy"}
    assert json.loads((out / "model.json").read_text())["sha256"] == results.head["model_hash"]


def test_vectors_are_kept_for_the_picture(done):
    with np.load(done[0] / "representation.npz", allow_pickle=False) as stored:
        count = 4 * 3 * 4 - 4
        assert stored["z"].shape == stored["x_h"].shape == (count, 16)
        for name in ("subject", "person", "modality", "crop", "place"):
            assert len(stored[name]) == count
        assert set(stored["modality"][stored["subject"] == "test-1"].tolist()) == {"t1n", "t2w"}


def test_again_gives_the_same(model, cache, done, tmp_path):
    run(model, cache, tmp_path / "again")
    assert Results.read(tmp_path / "again").rows == Results.read(done[0]).rows


def test_what_is_there_is_kept(model, cache, done):
    with pytest.raises(UserError, match="--force"):
        run(model, cache, done[0])


def test_one_person_is_refused(model, cache, tmp_path):
    with pytest.raises(UserError, match="two persons"):
        run(model, cache, tmp_path / "few", limit=1)
    assert not (tmp_path / "few").exists()


def test_scores_to_record_are_those_of_a_task(model, tmp_path):
    with pytest.raises(UserError, match="--record"):
        evaluate(model, data=tmp_path, out=tmp_path / "out", representation=True, record=True)
