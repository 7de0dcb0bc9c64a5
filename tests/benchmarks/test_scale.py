"""The calculation of what many GPUs would take, against sums done by hand."""

import json

import pytest

from benchmarks import scale
from benchmarks.scale import Costs, crop_megabytes, disk_saturates, row, step

# A crop reads (32 + 32)³ of 64³ · 8 voxels: an eighth of 80 MB. Two of them at 1 GB/s: 20 ms.
COSTS = Costs(
    megabytes=80.0,
    voxels=64**3 * 8 / 1e6,
    seconds=0.2,
    batch=2,
    per_subject=4,
    patch=32,
    crops=100.0,
    workers=2,
    network=300.0,
    templates=100.0,
    per_node=4,
    inside=100.0,
    between=1.0,
    disk=1.0,
)


def test_each_factor_by_hand():
    assert crop_megabytes(COSTS) == pytest.approx(10)
    one, four, eight = (step(COSTS, gpus) for gpus in (1, 4, 8))
    assert one == pytest.approx({"compute": 0.2, "loaders": 0.01, "disk": 0.02, "gradients": 0.0})
    assert four == pytest.approx({"compute": 0.2, "loaders": 0.01, "disk": 0.08, "gradients": 1.5 * 0.4 / 100})
    assert eight == pytest.approx({"compute": 0.2, "loaders": 0.01, "disk": 0.16, "gradients": 1.75 * 0.4})
    assert disk_saturates(COSTS) == pytest.approx(10)


def test_an_epoch_by_hand():
    alone, four, eight = (row(COSTS, 1000, gpus) for gpus in (1, 4, 8))
    assert alone["cache_gigabytes"] == 80
    assert (alone["steps"], four["steps"], eight["steps"]) == (2000, 500, 250)
    assert alone["epoch_least_s"] == pytest.approx(400)
    assert alone["epoch_most_s"] == pytest.approx(2000 * 0.23)
    assert four["epoch_least_s"] == pytest.approx(100)
    assert four["speedup_at_most"] == pytest.approx(4)
    assert (four["slowest"], eight["slowest"]) == ("compute", "gradients")
    assert eight["gradient_megabytes_a_step"] == pytest.approx(700)
    assert row(COSTS, 7, 4)["steps"] == 4  # 28 sub-volumes, 8 in a step: the last is filled up


def test_a_crop_is_never_more_than_the_subject():
    assert crop_megabytes(Costs(patch=512)) == Costs().megabytes


def test_more_gpus_never_take_longer_for_computing_and_never_less_of_the_disk():
    rows = [row(Costs(), 10_000, 2**power) for power in range(8)]
    steps = [one["steps"] * one["compute_s"] for one in rows]
    assert steps == sorted(steps, reverse=True)
    assert [one["disk_s"] for one in rows] == sorted(one["disk_s"] for one in rows)


def test_the_file_says_that_it_is_a_calculation(tmp_path, capsys):
    scale.main(["--subjects", "100", "--gpus", "1", "64", "--seconds", "0.1", "--out", str(tmp_path / "scale.json")])
    told = json.loads((tmp_path / "scale.json").read_text())
    assert told["calculated"] is True
    assert told["costs"]["seconds"] == 0.1
    assert [one["gpus"] for one in told["rows"]] == [1, 64]
    assert "not measured" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        scale.main(["--disk", "0"])
    assert "positive numbers, got others for disk" in capsys.readouterr().err
