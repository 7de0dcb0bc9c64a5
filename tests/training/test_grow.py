"""A model for other modalities gives of the known ones what the old one gave, before any training."""

import pytest
import torch

from medprism.models import NetworkConfig, Prism
from medprism.training.grow import grown

KNOWN, MORE = ("pet", "ct"), ("ct", "nac", "pet")


def both(source, intensity=0):
    torch.manual_seed(0)
    shape = NetworkConfig(width=4, levels=3, source=source, intensity=intensity)
    old, new = (Prism(shape, count, (16, 16, 16)).eval() for count in (2, 3))
    state = grown(old.state_dict(), new, KNOWN, MORE)
    fitting = {name: value for name, value in state.items() if "head" not in name}
    new.load_state_dict({**new.state_dict(), **fitting})
    return old, new


@pytest.mark.parametrize(("source", "intensity"), [("tagged", 0), ("tagged", 3), ("repeated", 0)])
def test_known_modalities_pass_as_before(source, intensity):
    old, new = both(source, intensity)
    x = torch.randn(1, 1, 16, 16, 16)
    for name in KNOWN:
        here, there = (torch.tensor([names.index(name)]) for names in (KNOWN, MORE))
        with torch.no_grad():
            torch.testing.assert_close(new.bottleneck(x, there), old.bottleneck(x, here), rtol=1e-4, atol=1e-5)


def test_repeated_a_new_modality_passes_the_same_weights():
    old, new = both("repeated")
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        made = new.bottleneck(x, torch.tensor([1]))
        # as the paper has it: the scan in both of the old channels
        wanted = old.backbone.bottleneck(x.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_tagged_a_new_modality_starts_between_the_known():
    old, new = both("tagged")
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        stems = [old.backbone.stem(old.stem_input(x, torch.tensor([k]))) for k in range(2)]
        made = new.backbone.stem(new.stem_input(x, torch.tensor([1])))
    torch.testing.assert_close(made, (stems[0] + stems[1]) / 2, rtol=1e-4, atol=1e-5)
