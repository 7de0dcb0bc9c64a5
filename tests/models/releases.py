"""Checkpoints with the names of public releases, of networks of any size."""

import torch
from torch import nn


def randomised(network):
    """All weights and statistics random, none as it starts."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor += (
                    0.1 * torch.randn(tensor.shape).abs() if "running_var" in name else 0.1 * torch.randn_like(tensor)
                )
    return network


def brainmvp(uniformer):
    """A UniFormer's weights as BrainMVP's pre-training saves them; its kernels count as (Z, X, Y)."""
    made = {}
    for name, tensor in uniformer.state_dict().items():
        part, *rest = name.split(".")
        if part == "stages":
            stage, place = int(rest[0]) + 1, int(rest[1])
            where = f"patch_embed{stage}" if place == 0 else f"blocks{stage}.{place - 1}"
            made[".".join(["encoder.uniformer", where, *rest[2:]])] = tensor
        elif part == "norm":
            made[f"encoder.uniformer.{name}"] = tensor
        elif part == "up":
            made[".".join([f"decoder.decoder{int(rest[0]) + 2}", *rest[1:]])] = tensor
        elif part == "fine":
            made[".".join(["decoder.proj1", ("proj", "norm")[int(rest[0])], *rest[1:]])] = tensor
        else:
            made[f"decoder.out_1.conv.conv.{rest[0]}"] = tensor
    assert "encoder.uniformer.blocks3.7.attn.qkv.weight" in made
    assert made["encoder.uniformer.patch_embed1.proj.weight"].shape[1:] == (1, 2, 2, 2)
    return {**made, "rep_template": torch.rand(8, 6, 6, 5)}


def brainmvp_unet(network):
    """A residual U-Net's weights as BrainMVP's pre-training saves them."""
    made = {}
    for name, tensor in network.state_dict().items():
        part, *rest = name.split(".")
        if part == "stem":
            where = ["conv1a"]
        elif part == "down":
            where, rest = [f"ds{int(rest[0]) + 1}"], rest[1:]
        elif part == "blocks":
            level, place, inner, *rest = rest
            where = ["conv1b" if level == "0" else f"conv{int(level) + 1}{'abcd'[int(place)]}"]
            where.append(inner.replace("norm", "gn"))
        elif part == "up":
            where, rest = [f"up{int(rest[0]) + 2}conva"], rest[1:]
        elif part == "refine":
            where, rest = [f"up{int(rest[0]) + 2}convb", rest[1].replace("norm", "gn")], rest[2:]
        else:
            where = ["up1conv"]
        made[".".join([*where, *rest])] = tensor
    assert {"conv4d.gn2.weight", "conv2a.conv1.weight", "ds3.bias", "up4conva.weight"} <= set(made)
    return {"rep_template": torch.rand(8, 6, 6, 5), **made}


def swinunetr_ssl(network):
    """The transformer of a SwinUNETR of MONAI's as Tang et al. published it, without the leading `module.`."""
    return {name.replace(".mlp.linear", ".mlp.fc"): tensor for name, tensor in network.swinViT.state_dict().items()}


class PUIRModules(nn.Module):
    """What PUIR's release has beside the SwinUNETR."""

    def __init__(self, channels):
        super().__init__()
        self.static_prior = nn.Parameter(torch.randn(1, channels, 3, 3, 3))
        self.fuse_to_X = nn.Conv3d(3 * channels, channels, 3, padding=1)
        self.attn_for_x = nn.MultiheadAttention(27, 3, batch_first=True)
        self.attn_for_mod = nn.MultiheadAttention(27, 3, batch_first=True)
        self.tansfer_for_mod = nn.Sequential(*(nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2)))
        self.rotation_head, self.contrastive_head = nn.Linear(channels, 4), nn.Linear(channels, 512)
        self.conv = nn.Conv3d(channels, 4, 1)


def puir(network, modules):
    """A SwinUNETR of MONAI's and what comes with it, as PUIR's release saves them."""
    made = {
        name.replace("swinViT.", "swinViT1.") if name.startswith("swinViT.") else name: tensor
        for name, tensor in network.state_dict().items()
    }
    return {**made, **modules.state_dict()}
