import json

import numpy as np
import pytest

from medprism.errors import UserError
from medprism.evaluation.results import METRICS, PER_SUBJECT, Results, Row, Score, machine, read_scores, write_scores

ROWS = (
    Row("strict", "pair", "model", ("t1n",), "t2w", "foreground", "psnr", 21.5, 1.25, (20.0, 23.0), 5, 1),
    Row("strict", "off-diagonal", "lookup", (), None, "volume", "ssim", None, None, None, 0, 5),
)


def test_metrics_json_round_trip(tmp_path):
    written = Results({"task": "transfer", "seed": 3}, ROWS)
    written.write(tmp_path)
    assert Results.read(tmp_path) == written
    assert written.select(method="lookup") == [ROWS[1]]
    content = json.loads((tmp_path / METRICS).read_text())
    assert content["rows"][0]["given"] == ["t1n"]
    assert content["rows"][1]["target"] is None


def test_json_never_holds_nan(tmp_path):
    row = Row("strict", "pair", "model", ("t1n",), "t2w", "volume", "psnr", float("nan"), None, None, 1, 0)
    with pytest.raises(ValueError, match="JSON"):
        Results({}, (row,)).write(tmp_path)
    assert not (tmp_path / METRICS).exists()


def test_per_subject_round_trip(tmp_path):
    name = 'odd, "name"\nwith <script>'
    scores = [
        Score("strict", "model", ("t1n", "t2f"), "t2w", "foreground", "psnr", 20.123456789012345, name, "p,1"),
        Score("paper", "lookup", ("ct",), None, "volume", "ssim", float("nan"), "b", "b"),
    ]
    write_scores(scores, tmp_path)
    back = read_scores(tmp_path)
    assert back[0] == scores[0]
    assert np.isnan(back[1].value)
    assert back[1].target is None


@pytest.mark.parametrize("text", ["", "[]", '{"rows": [{"mean": 1}]}', "{}"])
def test_damaged_tables_are_told(tmp_path, text):
    with pytest.raises(UserError, match="missing"):
        Results.read(tmp_path)
    (tmp_path / METRICS).write_text(text)
    with pytest.raises(UserError, match="table of results"):
        Results.read(tmp_path)
    with pytest.raises(UserError, match="missing"):
        read_scores(tmp_path)
    (tmp_path / PER_SUBJECT).write_text("protocol,method\nstrict,model\n")
    with pytest.raises(UserError, match="table of scores"):
        read_scores(tmp_path)


def test_machine_names_versions_but_no_host():
    import platform

    about = machine()
    assert {"python", "torch", "numpy", "cores"} <= set(about)
    assert platform.node() not in about.values()
