"""The score against its closed form, the learning rate's shape, the running average, the table of an epoch."""

import csv
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from medprism.methods.puir import PUIR, PUIRConfig
from medprism.methods.scores import transfer_psnr
from medprism.models import NetworkConfig, Prism
from medprism.training.callbacks import MetricsTable
from medprism.training.module import OptimiserConfig, Training
from tests.methods.batches import batch


class Constant(torch.nn.Module):
    """Generates `value * (1 + t)` everywhere for target t, from any source."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.sources = value, []

    def forward(self, x, source):
        self.sources = source.tolist()
        targets = torch.arange(1, 4, dtype=torch.float32).view(1, 3, 1, 1, 1)
        return None, None, (self.value * targets).expand(len(x), 3, *x.shape[2:])


def test_psnr_of_every_pair_in_the_foreground_of_the_source():
    data = batch([[True, False, True], [False, True, False], [True, True, False]])
    expected = []
    for b, s, t in ((0, 0, 2), (0, 2, 0), (2, 0, 1), (2, 1, 0)):  # a subject with one scan has no pair
        target = data.images[b, t][data.foreground[b, s]]
        span = float(target.max() - target.min())
        error = float(((0.3 * (1 + t) - target) ** 2).mean())
        expected.append(20 * math.log10(span) - 10 * math.log10(error))
    network = Constant(0.3)
    torch.testing.assert_close(transfer_psnr(network, data), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert network.sources == [0, 2, 1, 0, 1]


def test_psnr_of_a_known_error():
    """A target of 1.5 and 2.5 that is given as 2: missed by 0.5 over a range of 1."""
    data = batch([[True, True, False]])
    data.images[0, 1] = 1.5
    data.images[0, 1, :8] = 2.5
    data.foreground[0, 0] = True
    [score, _] = transfer_psnr(Constant(1.0), data)
    assert float(score) == pytest.approx(20 * math.log10(1 / 0.5))


def test_crops_of_a_subject_count_as_one_volume():
    """Errors of 0.5 and 0.1 over a range of 1 in crops of the same size: neither PSNR, nor the mean of both."""
    data = batch([[True, True, False], [True, True, False]])
    data.images[:, 1] = torch.tensor([1.5, 2.1])[:, None, None, None]
    data.images[0, 1, :8] = 2.5
    data.foreground[:, 0] = True
    data.subject[1] = data.subject[0]
    [score, _] = transfer_psnr(Constant(1.0), data)
    assert float(score) == pytest.approx(-10 * math.log10((0.25 + 0.01) / 2), abs=1e-4)


def test_nothing_to_score_gives_nothing():
    single = batch([[True, False, False]])
    assert len(transfer_psnr(Constant(1.0), single)) == 0
    empty = batch([[True, True, False]])
    empty.foreground[:] = False
    assert len(transfer_psnr(Constant(1.0), empty)) == 0


def test_rate_rises_linearly_and_falls_as_a_cosine_to_zero():
    config = OptimiserConfig(warmup=0.1)
    rates = [config.rate(step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == 0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert config.rate(250, 100) == 0
    assert replace(config, warmup=0.0).rate(0, 100) == 1
    assert all(0 <= OptimiserConfig(warmup=warmup).rate(0, 1) <= 1 for warmup in (0.0, 0.05, 1.0))


def module_of(config: OptimiserConfig) -> Training:
    network = Prism(NetworkConfig(width=4, levels=2), 3, (16, 16, 16))
    return Training(network, PUIR(PUIRConfig(embedding=8), 8, ("t1n", "t1c", "t2w"), 0), config, steps=10)


def test_average_of_the_weights_is_what_is_shipped():
    module = module_of(OptimiserConfig(average=0.75))
    for value in (1.0, 3.0, 5.0):
        torch.nn.init.constant_(module.network.backbone.head.bias, value)
        module.averaged.update_parameters(module.network)
    expected = 0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 5  # begins with the first weights, not with the random ones
    torch.testing.assert_close(module.shipped.backbone.head.bias, torch.full((3,), expected))
    trained = {id(p) for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(p) for part in (module.network, module.objective) for p in part.parameters()}


def test_without_average_the_trained_network_is_shipped():
    module = module_of(OptimiserConfig())
    assert module.shipped is module.network


def trainer(epoch, rank=0, **metrics):
    return SimpleNamespace(
        current_epoch=epoch,
        global_step=4 * (epoch + 1),
        is_global_zero=rank == 0,
        callback_metrics={f"train/{name}": torch.tensor(value) for name, value in metrics.items()},
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5}])],
    )


def one_epoch(table, epoch, rank=0, **metrics):
    table.on_train_epoch_start(trainer(epoch, rank), None)
    table.on_train_epoch_end(trainer(epoch, rank, **metrics), None)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_has_a_row_an_epoch_and_drops_those_that_are_done_again(tmp_path):
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path)
    table.on_fit_start(trainer(0), None)
    for epoch in range(3):
        one_epoch(table, epoch, loss=1.0 / (epoch + 3))
    before = read(path)
    assert [row["epoch"] for row in before] == ["0", "1", "2"]
    assert [row["step"] for row in before] == ["4", "8", "12"]
    assert float(before[0]["train/loss"]) == float(torch.tensor(1 / 3))  # every digit is kept
    resumed = MetricsTable(path)  # from a checkpoint after epoch 0
    resumed.on_fit_start(trainer(1), None)
    one_epoch(resumed, 1, loss=7.0, psnr=20.0)
    after = read(path)
    assert [row["epoch"] for row in after] == ["0", "1"]
    assert {name: after[0][name] for name in before[0]} == before[0]
    assert (after[0]["train/psnr"], after[1]["train/psnr"], after[1]["train/loss"]) == ("", "20.0", "7.0")


def test_only_the_first_process_writes_the_table(tmp_path):
    one_epoch(MetricsTable(tmp_path / "metrics.csv"), 0, rank=1, loss=1.0)
    assert not list(tmp_path.iterdir())
