import logging

import pytest
import torch
from torch import nn

from medprism.errors import UserError
from medprism.inference.device import Runner, choose_device


class Network(nn.Module):
    """Doubles; counts windows; has only so much memory on what is not the CPU."""

    def __init__(self, fits=1000):
        super().__init__()
        self.weight, self.fits, self.sizes = nn.Parameter(torch.tensor(2.0)), fits, []

    def generate(self, images, present):
        if len(images) > self.fits:
            raise torch.OutOfMemoryError
        self.sizes.append(len(images))
        return images * self.weight

    def embed(self, images, present):
        return images.mean((2, 3, 4))[..., None] * self.weight


IMAGES, PRESENT = torch.randn(8, 2, 3, 3, 3), torch.ones(8, 2, dtype=torch.bool)


class Small(Runner):
    """A runner that takes the CPU for a device of little memory."""

    def __init__(self, network):
        super().__init__(network, torch.device("cpu"))
        self.device, self.batch = torch.device("cuda"), 8

    def _once(self, what, images, present):
        if self.device.type == "cpu":
            self.network.fits = 1000
        device, self.device = self.device, torch.device("cpu")
        try:
            return super()._once(what, images, present)
        finally:
            self.device = device


@pytest.mark.parametrize("fits", [8, 5, 2, 1])
def test_memory_that_is_short_makes_batches_smaller_not_results_other(fits, caplog):
    network = Network(fits)
    runner = Small(network)
    assert torch.equal(runner.generate(IMAGES, PRESENT), IMAGES * 2)
    assert sum(network.sizes) == 8
    assert max(network.sizes) <= fits
    assert runner.device.type == "cuda"
    before = len(caplog.records)
    runner.generate(IMAGES, PRESENT)
    assert len(caplog.records) == before  # the smaller batch is remembered


def test_one_window_too_many_goes_to_the_cpu_with_one_line(caplog):
    runner = Small(Network(0))
    runner.batch = 1
    with caplog.at_level(logging.WARNING):
        assert torch.equal(runner.generate(IMAGES, PRESENT), IMAGES * 2)
    assert runner.device.type == "cpu"
    assert len(caplog.records) == 1


def test_the_cpu_has_nowhere_to_go():
    with pytest.raises(torch.OutOfMemoryError):
        Runner(Network(0), torch.device("cpu")).generate(IMAGES, PRESENT)


def test_results_come_back_in_single_precision():
    runner = Runner(Network(), torch.device("cpu"), "bf16")
    assert runner.embed(IMAGES, PRESENT).dtype == torch.float32
    assert not runner.network.weight.requires_grad


def test_a_device_that_is_not_there_is_a_users_mistake():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:77", "banana:0"):
        with pytest.raises(UserError, match="use auto"):
            choose_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    there = Runner(Network(), torch.device("cuda")).generate(IMAGES, PRESENT)
    torch.testing.assert_close(there, IMAGES * 2)
