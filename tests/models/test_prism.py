"""The shared network: subsets, order, absent content, the single-channel stem, every choice."""

import math

import pytest
import torch
from torch import nn

from medprism.errors import UserError
from medprism.models import NetworkConfig, Prism, build
from medprism.models.prism import mean_by_owner

SMALL = {
    "unet": NetworkConfig(width=4, levels=3),
    "swinunetr": NetworkConfig("swinunetr", width=12),
    "uniformer": NetworkConfig("uniformer", width=4, levels=5),
    "unet3d": NetworkConfig("unet3d", width=4, levels=3),
}
SIZE = {"unet": (16, 16, 16), "swinunetr": (64, 64, 64), "uniformer": (32, 16, 48), "unet3d": (16, 24, 16)}


def network(backbone: str = "unet", modalities: int = 3, **changes) -> Prism:
    torch.manual_seed(0)
    config = NetworkConfig(**{**vars(SMALL[backbone]), **changes})
    return Prism(config, modalities, SIZE[backbone]).eval()


@pytest.mark.parametrize("backbone", ["unet", "uniformer", "unet3d", pytest.param("swinunetr", marks=pytest.mark.slow)])
def test_one_channel_equals_the_modality_repeated(backbone):
    """PUIR repeats a modality M times; the summed stem gives the same features."""
    net = network(backbone)
    x = torch.randn(1, 1, *SIZE[backbone])
    with torch.no_grad():
        single, repeated = net.encode(x, torch.tensor([0])), net.backbone.encode(x.expand(-1, 3, -1, -1, -1))
    assert len(single) == len(net.backbone.channels)
    for a, b, channels, stride in zip(single, repeated, net.backbone.channels, net.backbone.strides, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        assert a.shape == (1, channels, *(side // stride for side in SIZE[backbone]))


@pytest.mark.parametrize("prior", ["channel", "token", "none"])
@pytest.mark.parametrize("fusion", ["paper", "release"])
def test_shapes_and_gradients_of_every_choice(prior, fusion):
    net = network(prior=prior, fusion=fusion)
    z, x_h, images = net(torch.randn(2, 1, 16, 16, 16), torch.tensor([0, 2]))
    assert z.shape == x_h.shape == (2, 16, 4, 4, 4)
    assert images.shape == (2, 3, 16, 16, 16)
    images.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert prior == "none" or not torch.equal(z, x_h)


@pytest.mark.parametrize("prior", ["channel", "token"])
def test_other_sizes_than_the_patch(prior):
    net = network(prior=prior)
    with torch.no_grad():
        assert net(torch.randn(1, 1, 24, 16, 32), torch.tensor([1]))[2].shape == (1, 3, 24, 16, 32)


def test_generate_from_one_source_equals_its_forward():
    net, images = network(), torch.randn(2, 3, 16, 16, 16)
    present = torch.tensor([[False, True, False], [True, False, False]])
    with torch.no_grad():
        expected = net(torch.stack([images[0, 1], images[1, 0]])[:, None], torch.tensor([1, 0]))[2]
        torch.testing.assert_close(net.generate(images, present), expected)


def test_generate_averages_over_sources_and_ignores_absent_content_and_order():
    """The order of a `tagged` network's modalities is that of its stem, so the repeated one is permuted here."""
    net, images = network(), torch.randn(2, 3, 16, 16, 16)
    present = torch.tensor([[True, True, False], [False, True, True]])
    with torch.no_grad():
        out = net.generate(images, present)
        *skips, z = net.encode(images[0, :2, None], torch.tensor([0, 1]))
        means = [f.mean(dim=0, keepdim=True) for f in (*skips, net.personalise(z))]
        torch.testing.assert_close(out[:1], net.decode(means[:-1], means[-1]), rtol=1e-4, atol=1e-5)
        images[~present] = math.nan
        assert torch.equal(net.generate(images, present), out)
        swapped = net.generate(images[:, [1, 0, 2]], present[:, [1, 0, 2]])
        torch.testing.assert_close(swapped, out, rtol=1e-4, atol=1e-5)


def test_embed_is_zero_where_absent():
    net, images = network(), torch.randn(1, 3, 16, 16, 16)
    with torch.no_grad():
        vectors = net.embed(images, torch.tensor([[True, False, True]]))
    assert vectors.shape == (1, 3, 16)
    assert not vectors[0, 1].any()
    assert vectors[0, 0].any()


def test_a_subject_without_scans_is_refused():
    with pytest.raises(ValueError, match="at least one present"):
        network().generate(torch.zeros(1, 3, 16, 16, 16), torch.zeros(1, 3, dtype=torch.bool))


def test_patch_that_the_backbone_cannot_halve_is_refused():
    with pytest.raises(UserError, match="multiples of 4"):
        Prism(SMALL["unet"], 3, (16, 16, 18))


def test_build_gives_the_same_network_back():
    net = network(prior="token", fusion="release")
    again = build(net.architecture)
    again.load_state_dict(net.state_dict())
    x, source = torch.randn(1, 1, 16, 16, 16), torch.tensor([1])
    with torch.no_grad():
        assert torch.equal(again.eval()(x, source)[2], net(x, source)[2])
    with pytest.raises(UserError, match="architecture"):
        build({"network": {"backbone": "unet", "colour": 1}, "modalities": 3, "patch_size": [16, 16, 16]})


@pytest.mark.parametrize("channels", [0, 4])
def test_tagged_source_goes_into_its_own_channel(channels):
    """The stem sees the scan in its own channel, ones in its tag's, its table's channels if asked for, zeros else."""
    net = network(source="tagged", intensity=channels)
    seen = []
    net.backbone.stem.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    x, source = torch.randn(2, 1, 16, 16, 16), torch.tensor([2, 0])
    net.encode(x, source)
    expected = torch.zeros(2, 6 + channels, 16, 16, 16)
    expected[0, 2], expected[1, 0], expected[0, 5], expected[1, 3] = x[0, 0], x[1, 0], 1, 1
    if channels:
        expected[:, 6:] = net.table(x, source).detach()
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("channels", [0, 4])
def test_one_scan_stacked_enters_as_a_tagged_one(channels):
    net = network(source="tagged", intensity=channels)
    images, present = torch.full((2, 3, 16, 16, 16), math.nan), torch.zeros(2, 3, dtype=torch.bool)
    x, source = torch.randn(2, 1, 16, 16, 16), torch.tensor([2, 0])
    images[0, 2], images[1, 0], present[0, 2], present[1, 0] = x[0, 0], x[1, 0], True, True
    assert torch.equal(net.stacked(images, present), net.stem_input(x, source))


def test_absent_channels_of_stacked_scans_are_the_mean_of_the_present():
    images, present = torch.randn(1, 3, 4, 4, 4), torch.tensor([[True, False, True]])
    images[0, 1] = math.nan
    stacked = network().stacked(images, present)
    assert torch.equal(stacked[0, [0, 2]], images[0, [0, 2]])
    torch.testing.assert_close(stacked[0, 1], (images[0, 0] + images[0, 2]) / 2)


@pytest.mark.parametrize("source", ["repeated", "tagged"])
def test_only_a_tagged_network_is_told_the_modality(source):
    net, x = network(source=source), torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        first, second = (net(x, torch.tensor([m]))[2] for m in (0, 1))
    assert torch.equal(first, second) == (source == "repeated")


@pytest.mark.parametrize("backbone", ["uniformer", "unet3d"])
def test_other_backbones_are_trained_whole_and_read_nothing_that_is_absent(backbone):
    net, images = network(backbone), torch.randn(2, 3, *SIZE[backbone])
    present = torch.tensor([[True, True, False], [False, True, True]])
    out = net.generate(images, present)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    images[~present] = math.nan
    with torch.no_grad():
        assert torch.equal(net.generate(images, present), out)
    assert net.embed(images, present).shape == (2, 3, net.backbone.channels[-1])


def test_the_bottleneck_alone_is_the_last_of_the_features():
    for backbone in ("unet", "uniformer", "unet3d"):
        net, x = network(backbone), torch.randn(1, 1, *SIZE[backbone])
        with torch.no_grad():
            assert torch.equal(net.bottleneck(x, torch.tensor([1])), net.encode(x, torch.tensor([1]))[-1])


def test_options_of_other_backbones_are_refused():
    with pytest.raises(UserError, match=r"2 to 5 with uniformer for network\.levels, got 6"):
        NetworkConfig("uniformer", levels=6)
    with pytest.raises(UserError, match=r"none with unet3d for network\.norm, got batch"):
        NetworkConfig("unet3d", norm="batch")


@pytest.mark.parametrize("backbone", ["unet", "unet3d"])
def test_maps_stay_in_the_memory_format_that_convolutions_are_fast_in(backbone):
    torch.manual_seed(0)
    net, lost = Prism(NetworkConfig(backbone, width=8, levels=3), 3, (16, 16, 16)), []
    for name, module in net.backbone.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(
                lambda module, given, made, name=name: lost.extend(
                    name for x in (*given, made) if not x.is_contiguous(memory_format=torch.channels_last_3d)
                )
            )
    net.generate(torch.randn(2, 3, 16, 16, 16), torch.tensor([[True, False, True], [True, True, True]]))
    assert lost == []


def test_means_by_owner_are_means_in_any_memory_format():
    torch.manual_seed(0)
    feature, owner = torch.randn(6, 4, 3, 2, 5), torch.tensor([0, 0, 0, 1, 2, 2])
    wanted = torch.stack([feature[:3].mean(0), feature[3], feature[4:].mean(0)])
    torch.testing.assert_close(mean_by_owner(feature, owner, 3), wanted)
    found = mean_by_owner(feature.to(memory_format=torch.channels_last_3d), owner, 3)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found, wanted)
    vectors = torch.randn(6, 7)
    torch.testing.assert_close(mean_by_owner(vectors, owner, 3)[0], vectors[:3].mean(0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mean_by_owner(feature, owner, 3), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "changes"), [("unet", {"source": "tagged", "intensity": 2}), ("unet3d", {})])
def test_a_pass_is_one_graph_to_the_compiler(backbone, changes):
    """No value of a tensor steers the pass, so nothing breaks its graph; the backend runs it as it is."""
    net = network(backbone, **changes)
    x, source = torch.randn(2, 1, *SIZE[backbone]), torch.tensor([0, 2])
    compiled = torch.compile(net.forward, backend="eager", fullgraph=True)
    for made, expected in zip(compiled(x, source), net(x, source), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
