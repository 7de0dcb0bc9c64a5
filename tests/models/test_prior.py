"""Retrieval and fusion against their formulas written out."""

import math

import pytest
import torch
from torch.nn import functional as F

from medprism.models.prior import ChannelRetrieval, Fusion, Prior, TokenRetrieval


def attention(layer, query, memory):
    """Multi-head attention of tokens (Q, E) on (K, E), from the layer's weights."""
    (wq, wk, wv), (bq, bk, bv) = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    heads = layer.num_heads
    q, k, v = (
        (tokens @ w.T + b).unflatten(1, (heads, -1)).transpose(0, 1)
        for tokens, w, b in ((query, wq, bq), (memory, wk, bk), (memory, wv, bv))
    )
    shares = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)
    return layer.out_proj((shares @ v).transpose(0, 1).flatten(1))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_channel_retrieval_is_attention_of_channels_on_channels():
    retrieve, z = ChannelRetrieval(5, (3, 2, 2)), torch.randn(2, 5, 3, 2, 2)
    assert retrieve.attention.num_heads == 3
    expected = [attention(retrieve.attention, row.flatten(1), retrieve.prior[0].flatten(1)) for row in z]
    torch.testing.assert_close(retrieve(z), torch.stack(expected).view_as(z))


def test_token_retrieval_is_attention_of_places_on_places():
    retrieve, z = TokenRetrieval(8, (2, 2, 3)), torch.randn(2, 8, 3, 4, 1)
    assert retrieve.attention.num_heads == 4
    expected = [attention(retrieve.attention, row.flatten(1).T, retrieve.prior[0].flatten(1).T).T for row in z]
    torch.testing.assert_close(retrieve(z), torch.stack(expected).view_as(z))


def test_channel_retrieval_of_another_size_goes_through_the_priors():
    retrieve, z = ChannelRetrieval(4, (3, 3, 3)), torch.randn(1, 4, 6, 3, 4)
    small = F.interpolate(z, size=(3, 3, 3), mode="trilinear")
    torch.testing.assert_close(retrieve(z), F.interpolate(retrieve(small), size=(6, 3, 4), mode="trilinear"))


@pytest.mark.parametrize(("size", "heads"), [((3, 3, 3), 3), ((2, 2, 2), 2), ((1, 1, 7), 1)])
def test_heads_divide_what_they_share(size, heads):
    assert ChannelRetrieval(4, size).attention.num_heads == heads


def test_token_heads_divide_the_channels():
    assert [TokenRetrieval(channels, (1, 1, 1)).attention.num_heads for channels in (8, 6, 7)] == [4, 3, 1]


def test_fusion_of_the_paper_is_one_convolution_of_both():
    fusion, z, found = Fusion(3, "paper"), torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 4, 4)
    expected = F.conv3d(torch.cat([z, found], dim=1), fusion.fuse.weight, fusion.fuse.bias, padding=1)
    torch.testing.assert_close(fusion(z, found), expected)
    assert len(list(fusion.parameters())) == 2


def test_fusion_of_the_release_convolves_the_find_first_and_takes_z_twice():
    fusion, z, found = Fusion(3, "release"), torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 4, 4)
    between = found
    for conv in fusion.before:
        between = F.conv3d(between, conv.weight, conv.bias, padding=1)
    expected = F.conv3d(torch.cat([z, between, z], dim=1), fusion.fuse.weight, fusion.fuse.bias, padding=1)
    torch.testing.assert_close(fusion(z, found), expected)


@pytest.mark.parametrize("retrieval", ["channel", "token"])
def test_prior_is_one_tensor_that_is_learnt_and_shared_by_all_rows(retrieval):
    prior, z = Prior(8, (3, 3, 3), retrieval), torch.randn(4, 8, 3, 3, 3)
    assert prior.retrieve.prior.shape == (1, 8, 3, 3, 3)
    assert abs(float(prior.retrieve.prior.detach().std()) - 1) < 0.2
    x_h = prior(z)
    torch.testing.assert_close(x_h, torch.cat([prior(row[None]) for row in z]), rtol=1e-4, atol=1e-5)
    x_h.square().mean().backward()
    assert prior.retrieve.prior.grad.abs().sum() > 0
