"""Transformers over tokens: against torch's own layer, what is left out, places at other sizes."""

import pytest
import torch
from torch import nn

from medprism.models.token_transformer import Places, TokenTransformer, TransformerLayer


def reference(layer, dim=12, heads=3, mlp=20):
    """Torch's layer with the same weights."""
    made = nn.TransformerEncoderLayer(dim, heads, mlp, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    ours = layer.state_dict()
    state = {
        "self_attn.in_proj_weight": ours["qkv.weight"],
        "self_attn.in_proj_bias": torch.zeros(3 * dim),
        **{f"self_attn.out_proj.{part}": ours[f"out.{part}"] for part in ("weight", "bias")},
        **{f"linear1.{part}": ours[f"up.{part}"] for part in ("weight", "bias")},
        **{f"linear2.{part}": ours[f"down.{part}"] for part in ("weight", "bias")},
        **{name: ours[name] for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")},
    }
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_is_torchs(masked):
    torch.manual_seed(0)
    layer, tokens = TransformerLayer(12, 3, 20, 0.1).eval(), torch.randn(2, 7, 12)
    here = torch.tensor([[True] * 5 + [False] * 2, [False] * 6 + [True]]) if masked else None
    with torch.no_grad():
        expected = reference(layer)(tokens, src_key_padding_mask=None if here is None else ~here)
        torch.testing.assert_close(layer(tokens, here), expected, rtol=1e-4, atol=1e-5)


def test_places_are_added_before_each_layer():
    torch.manual_seed(0)
    both, tokens, places = TokenTransformer(12, 3, 20, 2, 0.0).eval(), torch.randn(2, 4, 12), torch.randn(4, 12)
    first, second = both.layers
    torch.testing.assert_close(both(tokens, places), second(first(tokens + places) + places))


def test_dropout_is_of_training_alone():
    torch.manual_seed(0)
    layer, tokens = TransformerLayer(12, 3, 20, 0.5), torch.randn(2, 4, 12)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), layer(tokens))


def test_places_of_the_training_patch_and_of_others():
    places = Places(2, 3, (2, 3, 4))
    assert places((2, 3, 4)).shape == (2, 24, 3)
    assert not places((2, 3, 4)).any()  # learned from zero
    with torch.no_grad():
        places.table.copy_(torch.randn(places.table.shape))
    table = places.table.detach()
    assert torch.equal(places((2, 3, 4))[1, 1 * 12 + 2 * 4 + 3], table[1, :, 1, 2, 3])
    wider = places((2, 3, 8)).view(2, 2, 3, 8, 3)  # twice as many places along z, a quarter of a step off the old ones
    torch.testing.assert_close(
        wider[0, 1, 2, 3], 0.75 * table[0, :, 1, 2, 1] + 0.25 * table[0, :, 1, 2, 2], rtol=1e-5, atol=1e-6
    )
