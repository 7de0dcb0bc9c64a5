import csv
import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from medprism.errors import UserError
from medprism.evaluation.results import Results, read_scores
from medprism.evaluation.summaries import MEAN
from medprism.evaluation.transfer import evaluate_transfer
from tests.evaluation.fakes import FakeCache, FakeModel, cohort, entry, law


def run(model, cache, out, **keys):
    text = StringIO()
    evaluate_transfer(model, cache, out=out, console=Console(file=text, width=160), **keys)
    return Results.read(out), text.getvalue()


def wrong(source, target, x):
    return np.zeros_like(x) if source != target else x


def headline(results, method, metric="psnr", protocol="strict", region="foreground"):
    (row,) = results.select(group=MEAN, method=method, metric=metric, protocol=protocol, region=region)
    return row


def test_everything_a_report_needs_is_written(tmp_path):
    cache = cohort(noise=0.3)
    model = FakeModel(cache, law)
    results, text = run(model, cache, tmp_path / "out", protocols=("strict", "paper"))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json", "per_subject.csv", "subjects.csv", "slices.npz", "representation.npz", "model.json",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    head = results.head
    assert (head["task"], head["protocol"], head["split"]) == ("transfer", "strict+paper", "test")
    assert (head["split_hash"], head["model_hash"], head["seed"]) == ("c0ffee", "ab" * 32, 0)
    assert "leaks the target" in head["leak"]
    assert head["recipe"]["t1n"]["kind"] == "zscore"
    assert "leaks the target" in " ".join(text.split())
    assert len(results.select(group="pair", protocol="strict", method="model", metric="psnr", region="volume")) == 6
    assert len(results.select(group="diagonal", protocol="strict", method="model", metric="psnr", region="volume")) == 3
    assert not results.select(group="diagonal", method="lookup")
    assert all(row.n + row.n_empty == 4 for row in results.rows)


def test_model_runs_once_per_subject_and_source(tmp_path):
    cache = cohort()
    model = FakeModel(cache, law)
    run(model, cache, tmp_path / "out", protocols=("strict", "paper"))
    assert len(model.calls) == 4 * 3
    assert all(sum(call) == 1 for call in model.calls)


def test_rows_are_means_of_the_per_subject_values(tmp_path):
    cache = cohort(noise=0.5)
    results, _ = run(FakeModel(cache, law), cache, tmp_path / "out")
    values = [
        s.value
        for s in read_scores(tmp_path / "out")
        if (s.method, s.given, s.target, s.region, s.metric) == ("model", ("t1n",), "t2w", "foreground", "psnr")
    ]
    (row,) = results.select(method="model", given=("t1n",), target="t2w", region="foreground", metric="psnr")
    assert len(values) == row.n == 4
    assert row.mean == pytest.approx(np.mean(values))
    assert row.std == pytest.approx(np.std(values, ddof=1))


def test_losing_to_a_rival_is_visible(tmp_path):
    cache = cohort(noise=0.3)
    results, text = run(FakeModel(cache, wrong), cache, tmp_path / "bad")
    assert headline(results, "model").mean < headline(results, "identity").mean
    assert headline(results, "model-identity").ci95[1] < 0
    assert "✗" in text.replace("✗ loses to a rival", "")
    _, text = run(FakeModel(cache, law), cache, tmp_path / "good", protocols=("strict",))
    assert "identity" in text
    assert "lookup" in text


def test_incomplete_subjects_are_scored_where_they_have_both(tmp_path):
    cache = cohort()
    cache.splits["test"][0] = entry("holed", present=(True, False, True))
    cache.splits["test"][1] = entry("lonely", present=(False, True, False))
    model = FakeModel(cache, law)
    results, _ = run(model, cache, tmp_path / "out")
    pick = {"method": "model", "metric": "psnr", "region": "foreground"}
    assert results.select(given=("t1n",), target="t2w", **pick)[0].n == 3
    assert results.select(given=("t1n",), target="t1c", **pick)[0].n == 2
    with np.load(tmp_path / "out" / "representation.npz") as stored:
        assert len(stored["vectors"]) == 2 * 3 + 2 + 1
        assert stored["modality"][stored["subject"] == "lonely"].tolist() == ["t1c"]
    with (tmp_path / "out" / "subjects.csv").open() as file:
        rows = {row["subject"]: row for row in csv.DictReader(file)}
    assert [rows["holed"][m] for m in cache.modalities] == ["1", "0", "1"]
    assert len(rows) == 8


def test_rest_given_all_others(tmp_path):
    cache = cohort()
    model = FakeModel(cache, law)
    results, _ = run(model, cache, tmp_path / "out", given=("rest",))
    assert results.select(given=("t1n", "t1c"), target="t2w", method="lookup", metric="psnr", region="volume")
    assert all(sum(call) == 2 for call in model.calls)


def test_physical_units_for_ct_and_pet_only(tmp_path):
    cache = cohort(modalities=("ct", "pet", "t1n"), noise=0.2)
    results, _ = run(FakeModel(cache, law), cache, tmp_path / "out")
    metrics = {row.target: set() for row in results.select(group="pair")}
    for row in results.select(group="pair"):
        metrics[row.target].add(row.metric)
    assert "mae_hu" in metrics["ct"]
    assert "mae_suv" in metrics["pet"]
    assert metrics["t1n"] == {"psnr", "ssim", "nmse", "mae"}
    pick = {"target": "ct", "given": ("pet",), "method": "model", "region": "volume"}
    (hu,), (plain,) = (results.select(metric=metric, **pick) for metric in ("mae_hu", "mae"))
    assert hu.mean == pytest.approx(100 * plain.mean, rel=1e-3)


def test_slices_are_of_the_best_median_and_worst(tmp_path):
    cache = cohort(noise=0.0, test=5)
    for k, made in enumerate(cache.splits["test"]):
        made.volumes += np.where(made.masks, 0.1 * k * np.random.default_rng(k).normal(size=made.volumes.shape), 0)
    model = FakeModel(cache, law)
    run(model, cache, tmp_path / "out")
    with np.load(tmp_path / "out" / "slices.npz") as stored:
        about = json.loads(str(stored["about"]))
        names = {rank: info["subject"] for rank, info in about["subjects"].items()}
        assert names == {"best": "test-0", "median": "test-2", "worst": "test-4"}
        worst = cache.splits["test"][4]
        np.testing.assert_allclose(stored["worst/axial/images"], worst.volumes[:, :, :, 5], atol=0.01)
        expected = law(0, 2, worst.volumes[0])[:, 7]
        np.testing.assert_allclose(stored["worst/coronal/generated/0"][2], expected, atol=0.02)
        assert about["subjects"]["worst"]["spacing"] == [2.0, 2.0, 3.0]


def test_reproducible(tmp_path):
    cache = cohort(noise=0.4)
    for name in ("a", "b"):
        run(FakeModel(cache, law), cache, tmp_path / name, seed=5)
    for file in ("metrics.json", "per_subject.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_existing_evaluation_is_kept_without_force(tmp_path):
    cache = cohort()
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    run(FakeModel(cache, law), cache, out)
    before = (out / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="--force"):
        run(FakeModel(cache, wrong), cache, out)
    assert (out / "metrics.json").read_bytes() == before
    run(FakeModel(cache, wrong), cache, out, force=True, representation=False)
    assert (out / "metrics.json").read_bytes() != before
    assert not (out / "representation.npz").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_failure_leaves_nothing(tmp_path):
    cache = cohort()

    def broken(source, target, x):
        return np.full_like(x, np.nan)

    with pytest.raises(UserError, match=r"test-0.*non-finite"):
        run(FakeModel(cache, broken), cache, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_log_of_the_run_is_kept(tmp_path):
    cache = cohort()
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "metrics.csv").write_text("epoch,train/loss\n0,1.5\n")
    run(FakeModel(cache, law, path=tmp_path / "run" / "model"), cache, tmp_path / "out")
    assert "train/loss" in (tmp_path / "out" / "log.csv").read_text()


def test_persons_trained_on_are_refused(tmp_path):
    cache = cohort()
    cache.splits["test"][2].person = "train-0"
    with pytest.raises(UserError, match="test-2"):
        run(FakeModel(cache, law), cache, tmp_path / "out")
    results, text = run(FakeModel(cache, law), cache, tmp_path / "out", split="training")
    assert results.head["split"] == "training"
    assert "trained on these" in text


def test_other_split_needs_to_know_whom_the_model_saw(tmp_path):
    cache = cohort()
    model = FakeModel(cache, law)
    del model.card["training_persons"]
    run(model, cache, tmp_path / "same")
    model.card["split_hash"] = "another"
    with pytest.raises(UserError, match="c0ffee"):
        run(model, cache, tmp_path / "other")


def test_model_and_cache_must_fit(tmp_path):
    cache = cohort()
    other = FakeModel(cohort(modalities=("t2w", "t1c", "t1n")), law)
    with pytest.raises(UserError, match="t2w t1c t1n"):
        run(other, cache, tmp_path / "out")
    scaled = FakeModel(cache, law)
    scaled.card["normalisers"]["t1c"] = {**scaled.card["normalisers"]["t1c"], "clip": [-3.0, 3.0]}
    with pytest.raises(UserError, match="normaliser for t1c"):
        run(scaled, cache, tmp_path / "out")
    coarse = FakeModel(cache, law)
    coarse.card["spacing"] = [4.0, 4.0, 4.0]
    with pytest.raises(UserError, match="voxels of"):
        run(coarse, cache, tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "message"), [({"protocols": ("loose",)}, "strict"), ({"split": "validation"}, "none")]
)
def test_mistakes_are_told(tmp_path, keys, message):
    cache = cohort()
    with pytest.raises(UserError, match=message):
        run(FakeModel(cache, law), cache, tmp_path / "out", **keys)


def test_without_training_subjects_there_are_no_rivals(tmp_path):
    cache = FakeCache(("t1n", "t1c", "t2w"), {"test": [entry("a"), entry("b")]})
    results, _ = run(FakeModel(cache, law), cache, tmp_path / "out")
    assert results.head["rivals"] == {}
    assert {row.method for row in results.rows} == {"model"}
