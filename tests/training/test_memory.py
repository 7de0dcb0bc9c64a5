"""A process that keeps freed memory asks the system for it only once."""

import platform
import resource

import pytest
import torch

from medprism.training.memory import keep_freed_memory
from tests.training.runs import finish, start


def train_like(keep: bool) -> None:
    """Allocate and free as a training step does; exit code 1 where pages had to be fetched in the later steps."""
    if keep:
        keep_freed_memory()

    def step() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            torch.ones(64 << 20, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    step()
    raise SystemExit(int(step() > 1000))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is changed without glibc")
def test_freed_memory_is_used_again():
    assert finish(start(train_like, True)) == [0]
    assert finish(start(train_like, False)) == [1]  # or else this function is not needed any more
