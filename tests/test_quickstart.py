"""The quickstart and the sweep from end to end, small."""

import json
import shutil

import pytest

from medprism.cli import main
from medprism.data.cohort import Cohort


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "first"
    assert main(["quickstart", "--out", str(out), "--subjects", "5", "--steps", "6"]) == 0
    return out


@pytest.mark.slow
def test_quickstart_makes_all_it_says(made):
    results = json.loads((made / "evaluation" / "metrics.json").read_text())
    assert results["task"] == "transfer"
    assert {row["method"] for row in results["rows"]} >= {"model", "identity", "lookup", "model-lookup"}
    page = (made / "report.html").read_text()
    assert "phantom" in page
    assert "data:image" in page
    card = json.loads((made / "run" / "model" / "model.json").read_text())
    assert card["metrics"]["split"] == "test"
    assert card["sha256"] == results["model_hash"]


@pytest.mark.slow
def test_quickstart_again_keeps_what_is_done_and_loses_nothing(made, capsys):
    before = (made / "run" / "model" / "model.safetensors").read_bytes()
    assert main(["quickstart", "--out", str(made), "--subjects", "5", "--steps", "6"]) == 2
    assert "--resume auto" in capsys.readouterr().err
    (made / "report.html").unlink()
    assert main(["quickstart", "--out", str(made), "--subjects", "5", "--steps", "6", "--resume", "auto"]) == 0
    assert (made / "report.html").exists()
    assert (made / "run" / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_quickstart_on_a_cohort_without_sides_divides_it_by_person(made, tmp_path):
    cohort = Cohort.load(made / "phantoms" / "cohort.json")
    content = json.loads((made / "phantoms" / "cohort.json").read_text())
    content["training"] = content["training"] + content.pop("validation") + content.pop("test")
    whole = made / "phantoms" / "whole.json"
    whole.write_text(json.dumps(content))
    out = tmp_path / "own"
    assert main(["quickstart", "--out", str(out), "--data", str(whole), "--steps", "2"]) == 0
    divided = Cohort.load(out / "cohort.json")
    assert {s.subject for s in divided.subjects()} == {s.subject for s in cohort.subjects()}
    assert all((divided.training, divided.validation, divided.test))
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_sweep_trains_compares_and_skips_what_is_done(made, tmp_path, capsys):
    words = ["sweep", "--data", str(made / "cache"), "--out", str(tmp_path / "sweep"), "--epochs", "1"]
    words += ["--variants", '{"plain": {}, "no-prior": {"network.prior": "none", "puir.invariance": 0}}']
    assert main(words) == 0
    assert "no-prior" in capsys.readouterr().out
    assert (tmp_path / "sweep" / "report.html").exists()
    weights = tmp_path / "sweep" / "no-prior" / "seed-0" / "run" / "model" / "model.safetensors"
    first = weights.stat().st_mtime_ns
    assert main(words) == 0
    assert weights.stat().st_mtime_ns == first
    bad = [*words[:-1], '{"odd": {"network.colour": 1}}']
    capsys.readouterr()
    assert main(bad) == 2
    assert "colour" in capsys.readouterr().err


@pytest.mark.slow
def test_sweep_compares_what_the_encoders_represent(made, tmp_path, capsys):
    words = ["sweep", "--out", str(tmp_path / "sweep"), "--epochs", "1", "--representation"]
    words += ["--variants", '{"plain": {}, "no-prior": {"network.prior": "none"}}']
    assert main([*words, "--data", str(made / "cache")]) == 2
    assert "two persons" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()

    cache = shutil.copytree(made / "cache", tmp_path / "cache")
    index = json.loads((cache / "cache.json").read_text())
    index["splits"]["test"].append(index["splits"]["training"].pop())
    (cache / "cache.json").write_text(json.dumps(index))
    assert main([*words, "--data", str(cache)]) == 0
    assert "gap ↓" in capsys.readouterr().out
    for variant in ("plain", "no-prior"):
        results = json.loads((tmp_path / "sweep" / variant / "seed-0" / "representation" / "metrics.json").read_text())
        assert results["task"] == "representation"
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "no-prior/seed-0: x_h by t-SNE" in page
