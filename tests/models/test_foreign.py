"""Public checkpoints: made with the names of the releases, they compute the same in our networks."""

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import nn

from medprism.errors import UserError
from medprism.models import Prism
from medprism.models.folder import load_weights
from medprism.models.foreign import RELEASED, layout_of, spread
from medprism.models.residual_unet import ResidualUNet
from medprism.models.uniformer import UniFormer
from tests.models.releases import PUIRModules, brainmvp, brainmvp_unet, puir, randomised, swinunetr_ssl

PATCH = (96, 96, 96)


def imported(state, origin, modalities):
    """The network that the weights of a release make, all of it evaluated."""
    foreign = layout_of(state, origin, "a file").translate(state, modalities)
    torch.manual_seed(9)
    network = Prism(foreign.network, len(modalities), PATCH)
    report = load_weights(network, foreign.state, prefix=foreign.encoder)
    load_weights(network, foreign.state, prefix=tuple(network.state_dict()), minimum=0)
    assert (report.fraction, report.missing, report.mismatched) == (1.0, (), ())
    return network.eval(), report


def test_brainmvps_uniformer_has_its_axes_turned():
    """The release's encoder sees (Z, X, Y); run so on its own kernels it gives what the import gives on (X, Y, Z)."""
    theirs = randomised(UniFormer(1, 1, width=4, norm="batch")).eval()
    network, report = imported(brainmvp(theirs), "brainmvp", ("t1n", "t2w"))
    theirs, network, x = theirs.double(), network.double(), torch.randn(1, 1, 16, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        expected = [feature.permute(0, 1, 3, 4, 2) for feature in theirs.encode(x.permute(0, 1, 4, 2, 3))]
        for ours, their in zip(network.backbone.encode(x)[1:], expected[1:], strict=True):
            torch.testing.assert_close(ours, their, rtol=1e-4, atol=1e-6)
        turned = theirs.up[3].transp_conv(expected[-1])
        torch.testing.assert_close(network.backbone.up[3].transp_conv(expected[-1]), turned)
    assert network.config.norm == "batch"
    assert {name.split(".")[0] for name in report.unexpected} == {"rep_template", "decoder"}
    assert {name for name in report.unexpected if name.startswith("decoder")} == {
        *(f"decoder.proj1.{part}.{kind}" for part in ("proj", "norm") for kind in ("weight", "bias")),
        *(f"decoder.out_1.conv.conv.{kind}" for kind in ("weight", "bias")),
    }


def test_brainmvps_unet():
    theirs = randomised(ResidualUNet(1, 1, width=8))
    network, report = imported(brainmvp_unet(theirs), "brainmvp", ("t1n", "ct"))
    x = torch.randn(1, 1, 16, 8, 24)
    with torch.no_grad():
        for ours, their in zip(network.backbone.encode(x), theirs.encode(x), strict=True):
            torch.testing.assert_close(ours, their, rtol=1e-3, atol=1e-4)
        features = theirs.encode(x)
        torch.testing.assert_close(network.backbone.decoded(features)[0], theirs.decoded(features)[0])
    assert report.unexpected == ("rep_template", "up1conv.weight", "up1conv.bias")


def test_swinunetrs_transformer_is_what_monai_loads():
    monai = randomised(MonaiSwinUNETR(in_channels=1, out_channels=1, feature_size=12))
    state = swinunetr_ssl(monai)
    other = MonaiSwinUNETR(in_channels=1, out_channels=1, feature_size=12)
    other.load_from({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    network, report = imported(state, "swinunetr-ssl", ("ct",))
    ours = network.backbone.net.swinViT.state_dict()
    for name, tensor in other.swinViT.state_dict().items():
        assert torch.equal(ours[name], tensor), name
    assert not report.unexpected


def test_puir_gives_what_its_modules_give():
    monai = randomised(MonaiSwinUNETR(in_channels=4, out_channels=4, feature_size=12))
    prior = PUIRModules(192)
    network, report = imported(puir(monai, prior), "puir", RELEASED)
    ours = network.backbone.net.state_dict()
    for name, tensor in monai.state_dict().items():
        assert torch.equal(ours[name], tensor), name
    z = torch.randn(2, 192, 3, 3, 3)
    memory = prior.static_prior.expand(2, -1, -1, -1, -1).flatten(2)
    with torch.no_grad():
        found = prior.attn_for_x(z.flatten(2), memory, memory)[0].view_as(z)
        x_h = prior.fuse_to_X(torch.cat([z, prior.tansfer_for_mod(found), z], dim=1))
        torch.testing.assert_close(network.personalise(z), x_h, rtol=1e-4, atol=1e-4)
    assert {name.split(".")[0] for name in report.unexpected} == {
        "attn_for_mod",
        "rotation_head",
        "contrastive_head",
        "conv",
    }


def test_puir_for_other_modalities_keeps_what_a_single_scan_passes():
    monai = randomised(MonaiSwinUNETR(in_channels=4, out_channels=4, feature_size=12))
    state = puir(monai, PUIRModules(192))
    network, _ = imported(state, "puir", ("pet", "ct"))
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        expected = monai.swinViT.patch_embed(x.expand(-1, 4, -1, -1, -1))
        torch.testing.assert_close(network.backbone.net.swinViT.patch_embed(x), expected, rtol=1e-4, atol=1e-5)
        expected = monai.encoder1(x.expand(-1, 4, -1, -1, -1))
        torch.testing.assert_close(network.backbone.net.encoder1(x), expected, rtol=1e-3, atol=1e-4)
    assert not torch.equal(network.backbone.head.conv.conv.weight[0], state["out.conv.conv.weight"][0])


def test_a_spread_stem_passes_a_repeated_scan_alike():
    weight, x = torch.randn(5, 3, 2, 2, 2), torch.randn(1, 1, 4, 4, 4)
    made = nn.functional.conv3d(x.expand(-1, 2, -1, -1, -1), spread(weight, 2))
    torch.testing.assert_close(made, nn.functional.conv3d(x.expand(-1, 3, -1, -1, -1), weight), rtol=1e-4, atol=1e-5)


def test_another_layout_is_recognised():
    unet = brainmvp_unet(ResidualUNet(1, 1, width=2))
    with pytest.raises(UserError, match=r"weights of puir, with swinViT1.* in a file; it looks like --from brainmvp"):
        layout_of(unet, "puir", "a file")
    with pytest.raises(UserError, match=r"in a file; its names begin encoder\.weight"):
        layout_of({"encoder.weight": torch.zeros(1)}, "brainmvp", "a file")
    with pytest.raises(UserError, match=r"expected 3-D weights of swinunetr-ssl, got patch_embed\.proj\.weight"):
        layout_of({"patch_embed.proj.weight": torch.zeros(96, 3, 4, 4)}, "swinunetr-ssl", "a file")


def test_fewer_blocks_are_not_enough():
    state = brainmvp(UniFormer(1, 1, width=2, norm="batch"))
    for name in [name for name in state if ".blocks3.7." in name or ".blocks3.6." in name]:
        del state[name]
    foreign = layout_of(state, "brainmvp", "a file").translate(state, ("t1n",))
    with pytest.raises(UserError, match=r"expected at least 95 % .* missing"):
        load_weights(Prism(foreign.network, 1, PATCH), foreign.state, prefix=foreign.encoder)
