"""What a step costs does not rise unseen; the counter itself against closed forms."""

import json

import pytest
import torch

from benchmarks.counts import CASES, COLUMNS, FILE, count, measure, one_thread

ALLOWED = {"flop": 0.001, "operators": 0.02, "allocated_bytes": 0.02, "peak_bytes": 0.02}


def test_a_matrix_product_is_counted_exactly():
    a, b = torch.randn(64, 128), torch.randn(128, 256)
    with one_thread():
        once, twice = count(lambda: a @ b), count(lambda: (a @ b, a @ b))
    assert (once["flop"], once["allocated_bytes"], once["peak_bytes"]) == (2 * 64 * 128 * 256, 65536, 65536)
    assert twice == {name: 2 * value for name, value in once.items()}


def test_what_is_freed_does_not_raise_the_peak():
    a = torch.randn(1000, 1000)
    size = a.numel() * a.element_size()

    def one_after_the_other():
        for _ in range(3):
            (a + 1).sum()

    def together():
        return [(a + 1) for _ in range(3)]

    assert count(one_after_the_other)["peak_bytes"] == pytest.approx(size, rel=0.001)
    assert count(together)["peak_bytes"] == pytest.approx(3 * size, rel=0.001)


@pytest.mark.slow
def test_steps_cost_what_they_did():
    kept = {row["what"]: row for row in json.loads(FILE.read_text())["rows"]}
    assert kept.keys() == CASES.keys()
    for row in measure():
        for column in COLUMNS:
            told = f"{row['what']}, {column}: python -m benchmarks counts --out {FILE.name} if this is meant"
            assert row[column] == pytest.approx(kept[row["what"]][column], rel=ALLOWED[column]), told
