"""The page holds the numbers of the files, and nothing else."""

import json
from pathlib import Path

from benchmarks.counts import FILE
from benchmarks.table import RESULTS, markdown, tables

PAGE = (Path(__file__).parents[2] / "docs/performance.md").read_text()


def test_a_row_is_a_line_and_a_ratio_has_its_range():
    rows = [
        {"way": "fast_one", "seconds": 0.12345, "faster_by": 2.0, "least": 1.5, "largest": 2.25, "floor": None},
        {"way": "slow", "seconds": 1.0, "faster_by": 1.0, "least": 1.0, "largest": 1.0, "floor": None},
    ]
    assert markdown({"rows": rows}).splitlines() == [
        "| way | seconds | faster by |",
        "| --- | --- | --- |",
        "| fast one | 0.123 | 2.00 × (1.50 to 2.25) |",
        "| slow | 1 | 1.00 × (1.00 to 1.00) |",
    ]


def test_every_table_of_the_page_is_that_of_its_file():
    made = [*tables(RESULTS).values(), markdown(json.loads(FILE.read_text()))]
    assert len(made) > 1
    for table in made:
        assert table in PAGE
    assert sum(line.startswith("| --- |") for line in PAGE.splitlines()) == len(made)


def test_every_file_says_how_it_was_made():
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text())
        assert {"benchmark", "options", "rows", "machine"} <= result.keys()
        assert {"cpu", "cores", "threads", "versions"} <= result["machine"].keys()
