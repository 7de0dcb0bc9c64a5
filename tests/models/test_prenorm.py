"""The RFNet family's convolutions: against torch's own layers, at edges, for tiny maps, and exact for large ones."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medprism.models.prenorm import ConvEncoder, PaddedConv3d, PreNormConv3d, reflected


@pytest.mark.parametrize(
    ("kernel", "stride", "edge"), [(3, 1, "reflect"), (3, 2, "reflect"), (3, 1, "zeros"), (1, 1, "reflect")]
)
def test_layers_are_instance_norm_leaky_relu_convolution(kernel, stride, edge):
    torch.manual_seed(0)
    ours = PreNormConv3d(3, 5, kernel, stride, edge)
    conv = nn.Conv3d(3, 5, kernel, stride=stride, padding=kernel // 2, padding_mode=edge)
    conv.load_state_dict(ours.state_dict())
    reference = nn.Sequential(nn.InstanceNorm3d(3), nn.LeakyReLU(0.2), conv)
    x = 3 + 2 * torch.randn(2, 3, 8, 6, 4)
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-4, atol=1e-5)


def test_the_input_is_left_as_it_is():
    x = torch.randn(1, 2, 4, 4, 4)
    before = x.clone()
    PreNormConv3d(2, 2)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 1, 4), (1, 1, 1), (3, 2, 2)])
def test_an_axis_of_one_voxel_is_continued_by_it(shape):
    x = torch.arange(float(torch.tensor(shape).prod())).view(1, 1, *shape)
    sides = [[0] * 3 if n == 1 else [1, *range(n), n - 2] for n in shape]
    assert torch.equal(reflected(x)[0, 0], x[0, 0][sides[0]][:, sides[1]][:, :, sides[2]])


@pytest.mark.parametrize("edge", ["reflect", "zeros"])
def test_gradients_of_tiny_maps_under_autocast_are_right(edge):
    torch.manual_seed(0)
    for stride, shape in product((1, 2), product((1, 2, 3), repeat=3)):
        conv, x, made = PaddedConv3d(16, 16, 3, stride, edge), torch.randn(2, 16, *shape), []
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = conv(x)
            made.append(torch.autograd.grad(out.float().square().sum(), conv.weight)[0])
        assert (made[0] - made[1]).norm() < 0.05 * made[0].norm(), (stride, shape)


def test_large_maps_are_normalised_exactly():
    """In the layout in which they come; torch's kernel for that layout is off by 1e-3."""
    torch.manual_seed(0)
    conv = PreNormConv3d(2, 2, kernel=1)
    x = (1 + torch.randn(1, 2, 96, 96, 96)).contiguous(memory_format=torch.channels_last_3d)
    normal = F.leaky_relu(F.instance_norm(x.double()), 0.2)
    expected = F.conv3d(normal, conv.weight.double(), conv.bias.double())
    with torch.no_grad():
        torch.testing.assert_close(conv(x).double(), expected, rtol=0, atol=2e-5)


def test_an_encoder_halves_its_sides_at_each_level():
    made = ConvEncoder(2, (4, 8, 16, 32, 64))(torch.randn(1, 2, 32, 48, 16))
    assert [tuple(x.shape[1:]) for x in made] == [(4 * 2**n, 32 >> n, 48 >> n, 16 >> n) for n in range(5)]
