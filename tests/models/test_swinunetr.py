"""SwinUNETR taken apart at its bottleneck is MONAI's, and their weights go both ways."""

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR

from medprism.models.swinunetr import SwinUNETR

SIZE = (64, 64, 64)


@pytest.fixture(scope="module")
def pair():
    """Ours with the weights of a network of MONAI's."""
    torch.manual_seed(0)
    monai, ours = MonaiSwinUNETR(in_channels=3, out_channels=3, feature_size=12), SwinUNETR(3, 3, width=12)
    ours.net.load_state_dict(monai.state_dict(), strict=True)
    return ours.eval(), monai.eval()


def test_names_and_shapes_of_the_weights_are_monais(pair):
    ours, monai = (network.state_dict() for network in (pair[0].net, pair[1]))
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in monai.items()}
    assert len(ours) == len({id(p) for p in pair[0].parameters()}) + len(list(pair[0].buffers()))


@pytest.mark.slow
def test_taken_apart_equals_monai(pair):
    ours, monai = pair
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        features = ours.encode(x)
        torch.testing.assert_close(ours.decode(features), monai(x))
    for feature, channels, stride in zip(features, ours.channels, ours.strides, strict=True):
        assert feature.shape == (1, channels, *(side // stride for side in SIZE))
