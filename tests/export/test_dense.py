"""A network in the form that is traced is the network itself, on every subset."""

import pytest
import torch
from torch import nn

from medprism.errors import UserError
from medprism.export.attention import PlainAttention, plain
from medprism.export.graphs import traceable
from medprism.export.onnx_folder import OUTPUTS
from medprism.models.swinunetr import SwinUNETR
from medprism.models.window_attention import WindowAttention
from tests.export.networks import MAKE, M, make


def formed(name):
    return traceable(*make(name), OUTPUTS)


def windows(traced, subset, batch=2):
    present = torch.zeros(batch, M, dtype=torch.bool)
    present[:, list(subset)] = True
    generator = torch.Generator().manual_seed(len(subset))
    return torch.randn(batch, *traced.shape, generator=generator), present


@pytest.mark.parametrize("name", [name for name in MAKE if name != "swinunetr"])
def test_every_subset_gives_what_the_network_gives_and_reads_nothing_else(name):
    traced = formed(name)
    assert len(traced.subsets) == (1 if name.endswith("of-one") else 2**M - 1)
    for subset in traced.subsets:
        images, present = windows(traced, subset)
        clean = torch.where(present[:, :, None, None, None], images, 0.0)
        wanted = getattr(traced.network, traced.eager)(clean, present)
        got = traced.graph(images.masked_fill(~present[:, :, None, None, None], torch.nan), present)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
        assert float(wanted.std()) > 0


@pytest.mark.parametrize("name", ["transfer", "pmkl-student-of-one", "acn-of-one", "mmformer"])
def test_a_subset_that_is_not_served_gives_nan_and_harms_no_neighbour(name):
    traced = formed(name)
    images, present = windows(traced, traced.subsets[-1])
    alone = traced.graph(images, present)
    present[1] = ~present[1] if name.endswith("of-one") else False
    both = traced.graph(images, present)
    assert both[1].isnan().all()
    torch.testing.assert_close(both[0], alone[0])


def test_rows_have_subsets_of_their_own():
    traced = formed("fused-gates")
    images, _ = windows(traced, (0, 1, 2), batch=3)
    present = torch.tensor([[True, False, False], [False, True, True], [True, True, True]])
    torch.testing.assert_close(traced.graph(images, present), traced.network.segment(images, present))


def test_plain_attention_is_window_attention():
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, (2, 2, 2), qkv_bias=True)
    x, mask = torch.randn(12, 8, 8), torch.zeros(4, 8, 8)
    mask[1, :, 4:] = -100
    for given in (None, mask):
        wanted = attention(x, given)
        attention.__class__ = PlainAttention
        torch.testing.assert_close(attention(x, given), wanted)
        attention.__class__ = WindowAttention


def test_plain_finds_all_attention():
    network = plain(SwinUNETR(2, 2, 12))
    kinds = {type(module) for module in network.modules()}
    assert PlainAttention in kinds
    assert WindowAttention not in kinds


def test_the_network_itself_stays_as_it_is():
    network, task = make("swinunetr")
    traceable(network, task, OUTPUTS)
    assert WindowAttention in {type(module) for module in network.modules()}


def test_an_unknown_network_is_refused():
    with pytest.raises(UserError, match="Linear; give --format bundle"):
        traceable(nn.Linear(1, 1), "transfer", OUTPUTS)
