"""UniFormer: published counts, shapes of any size, blocks against their formulas, one sample not told of another."""

import math

import pytest
import torch
from torch.nn import functional as F

from medprism.models.linear_decoder import LinearDecoder
from medprism.models.uniformer import UniFormer
from medprism.models.uniformer_blocks import Attention, Embedding, GlobalBlock, LocalBlock, Perceptron


def uniformer(**changes) -> UniFormer:
    torch.manual_seed(0)
    return UniFormer(**{"in_channels": 3, "out_channels": 2, "width": 2, "levels": 5, **changes}).eval()


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def millions(number) -> float:
    return round(number / 1e6, 2)


def test_the_published_numbers_of_parameters():
    """The encoder without the stem at full resolution, which the release counts to the decoder."""
    with torch.device("meta"):
        encoder, whole = UniFormer(1, 0), UniFormer(4, 3)
        decoder = LinearDecoder(encoder.channels, encoder.strides, 1)
    assert millions(count(encoder) - count(encoder.fine)) == 22.04
    assert millions(count(decoder)) == 1.74
    assert millions(count(whole)) == 34.32
    assert (encoder.channels, encoder.strides) == ((64, 64, 128, 320, 512), (1, 2, 4, 8, 16))
    assert [len(stage) - 1 for stage in encoder.stages] == [3, 4, 8, 3]
    assert [block.attn.heads for stage in encoder.stages for block in stage if isinstance(block, GlobalBlock)] == (
        [5] * 8 + [8] * 3
    )
    with torch.device("meta"):
        assert count(UniFormer(1, 0, norm="batch")) == count(encoder)


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_features_have_the_channels_and_strides_that_it_says(levels, norm):
    net = uniformer(levels=levels, norm=norm)
    size = (16, 48, 32)
    with torch.no_grad():
        features = net.encode(torch.randn(2, 3, *size))
        assert net.decode(features).shape == (2, 2, *size)
        decoded = net.decoded(features)
    assert len(features) == levels
    for feature, channels, stride in zip(features, net.channels, net.strides, strict=True):
        assert feature.shape == (2, channels, *(side // stride for side in size))
    assert [one.shape for one in decoded] == [one.shape for one in features[:-1]]


@pytest.mark.parametrize("levels", [1, 6])
def test_levels_that_there_are_not(levels):
    with pytest.raises(ValueError, match=f"2 to 5 levels, got {levels}"):
        UniFormer(1, 1, levels=levels)


def test_batch_equals_loop():
    net, x = uniformer(), torch.randn(3, 1, 16, 16, 32)
    with torch.no_grad():
        together = net.decode(net.encode(x))
        alone = torch.cat([net.decode(net.encode(scan[None])) for scan in x])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_every_parameter_is_trained(norm):
    net = uniformer(norm=norm).train()
    net.decode(net.encode(torch.randn(2, 1, 32, 16, 16))).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    still = {name for name, p in net.named_parameters() if not p.grad.any()}
    assert not {name for name in still if not name.endswith("bias")}  # some biases vanish in a normalisation


def test_an_encoder_alone_has_no_decoder():
    net = uniformer(out_channels=0)
    assert not hasattr(net, "up")
    assert not hasattr(net, "head")
    assert len(net.encode(torch.randn(1, 1, 16, 16, 16))) == 5


def test_a_local_block_against_its_formula():
    torch.manual_seed(0)
    block, x = LocalBlock(16, "group"), torch.randn(2, 16, 4, 5, 6)
    weights = block.state_dict()

    def conv(name, y, **options):
        return F.conv3d(y, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def normed(y):
        grouped = y.reshape(2, 8, -1)
        grouped = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        return grouped.view_as(y)

    y = x + conv("pos_embed", x, padding=1, groups=16)
    y = y + conv("conv2", conv("attn", conv("conv1", normed(y)), padding=2, groups=16))
    y = y + conv("mlp.fc2", F.gelu(conv("mlp.fc1", normed(y))))
    with torch.no_grad():
        torch.testing.assert_close(block(x), y, rtol=1e-4, atol=1e-5)


def test_a_global_block_against_its_formula():
    torch.manual_seed(0)
    block, x = GlobalBlock(10, 5), torch.randn(2, 10, 2, 3, 4)
    with torch.no_grad():
        y = x + block.pos_embed(x)
        tokens = y.flatten(2).transpose(1, 2)
        q, k, v = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
        mixed = []
        for head in range(5):
            part = slice(2 * head, 2 * head + 2)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(2)).softmax(dim=-1)
            mixed.append(weights @ v[..., part])
        tokens = tokens + block.attn.proj(torch.cat(mixed, dim=-1))
        tokens = tokens + block.mlp(block.norm2(tokens))
        torch.testing.assert_close(block(x), tokens.transpose(1, 2).view_as(x), rtol=1e-4, atol=1e-5)


def test_attention_does_not_know_the_order_of_its_tokens():
    torch.manual_seed(0)
    attention, x, order = Attention(8, 2), torch.randn(1, 7, 8), torch.randperm(7)
    with torch.no_grad():
        torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


def test_an_embedding_is_one_map_of_each_block_normalised_by_itself():
    torch.manual_seed(0)
    embedding, x = Embedding(2, 6), torch.randn(1, 2, 4, 6, 2)
    with torch.no_grad():
        out = embedding(x)
        block = x[0, :, 2:4, 4:6, 0:2].flatten()
        one = embedding.proj.weight.flatten(1) @ block + embedding.proj.bias
        torch.testing.assert_close(out[0, :, 1, 2, 0], F.layer_norm(one, (6,)), rtol=1e-4, atol=1e-5)


def test_a_perceptron_of_maps_is_that_of_tokens():
    torch.manual_seed(0)
    maps, tokens, x = Perceptron(3, maps=True), Perceptron(3, maps=False), torch.randn(1, 3, 2, 2, 2)
    tokens.load_state_dict(
        {name: value.flatten(1) if value.ndim > 1 else value for name, value in maps.state_dict().items()}
    )
    with torch.no_grad():
        torch.testing.assert_close(maps(x).flatten(2), tokens(x.flatten(2).transpose(1, 2)).transpose(1, 2))
