"""Names of weights in public checkpoints, as the names of a prism.

Each layout is known from the names and shapes of the authors' releases:

- BrainMVP (https://arxiv.org/abs/2410.10604): UniFormer or UNET3D of one channel. UniFormer's encoder has its axes in
  the order Z, X, Y, so the kernels of its convolutions are turned.
- Swin UNETR's self-supervised weights (https://arxiv.org/abs/2111.14791): the transformer alone, of one channel of CT.
- PUIR (https://arxiv.org/abs/2411.06106): SwinUNETR and the prior.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from medprism.errors import UserError
from medprism.models.prism import NetworkConfig

State = dict[str, Tensor]

RELEASED = ("t1n", "t1c", "t2w", "t2f")
"""Modalities of PUIR's release, in the order of its channels."""


@dataclass(frozen=True)
class Foreign:
    """Weights of elsewhere in a prism's names.

    Attributes:
        network: shape of the prism that they fit.
        state: weights by name; those that a prism has no place for keep their own.
        encoder: beginnings of the names that must be filled.
    """

    network: NetworkConfig
    state: State
    encoder: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How the weights of a release are named.

    Attributes:
        mark: a name that only they have.
        translate: from their state and the modalities of the prism to be made.
        modalities: that they were trained on, where there is an order; the default of the command.
        cohort: what they were trained on.
        citation: whom to cite.
    """

    mark: str
    translate: Callable[[State, Sequence[str]], Foreign]
    modalities: tuple[str, ...]
    cohort: str
    citation: str


def renamed(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> State:
    """A state with other names.

    Args:
        state: weights by name.
        rules: regular expressions of the beginnings of names, and what stands there instead; the first that fits.
    """
    made = {}
    for name, tensor in state.items():
        fitting = ((found, new) for old, new in rules if (found := re.match(old, name)))
        found, new = next(fitting, (None, ""))
        made[name if found is None else new + name[found.end() :]] = tensor
    return made


def spread(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weights for a stem of other channels.

    A scan enters through all channels at once, so only the sum of their weights counts; it is kept, shared evenly.

    Args:
        weight: (C', C, x, y, z).
        channels: M.

    Returns:
        (C', M, x, y, z).
    """
    return (weight.sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1, 1)


def _with_stem(state: State, names: Sequence[str], channels: int) -> State:
    stems = {name: spread(state[name], channels) for name in names if name in state}
    return state | stems


def _of_brainmvp(state: State, modalities: Sequence[str]) -> Foreign:
    rules = []
    for stage in range(4):
        place = f"backbone.stages.{stage}."
        rules.append((rf"encoder\.uniformer\.patch_embed{stage + 1}\.", f"{place}0."))
        for block in range(_members(state, f"encoder.uniformer.blocks{stage + 1}.")):
            rules.append((rf"encoder\.uniformer\.blocks{stage + 1}\.{block}\.", f"{place}{block + 1}."))
        rules.append((rf"decoder\.decoder{stage + 2}\.", f"backbone.up.{stage}."))
    rules.append((r"encoder\.uniformer\.norm\.", "backbone.norm."))
    turned = {
        name: tensor.permute(0, 1, 3, 4, 2) if name.startswith("encoder.") and tensor.ndim == 5 else tensor
        for name, tensor in state.items()
    }
    stem = "backbone.stages.0.0.proj.weight"
    made = renamed(turned, rules)
    network = NetworkConfig("uniformer", width=len(made[stem]), levels=5, prior="none", norm="batch")
    made = _with_stem(made, [stem], len(modalities))
    return Foreign(network, made, ("backbone.stages.", "backbone.norm."))


def _of_brainmvp_unet(state: State, modalities: Sequence[str]) -> Foreign:
    inner = {"gn1": "norm1", "gn2": "norm2", "conv1": "conv1", "conv2": "conv2"}
    blocks = {"conv1b": "blocks.0.0"}
    blocks |= {
        f"conv{level + 1}{'abcd'[place]}": f"blocks.{level}.{place}" for level in (1, 2, 3) for place in range(4)
    }
    blocks |= {f"up{level + 2}convb": f"refine.{level}" for level in range(3)}
    parts = {"conv1a": "stem", **{f"ds{level + 1}": f"down.{level}" for level in range(3)}}
    parts |= {f"up{level + 2}conva": f"up.{level}" for level in range(3)}
    parts |= {f"{block}.{old}": f"{place}.{new}" for block, place in blocks.items() for old, new in inner.items()}
    made = renamed(state, [(rf"{re.escape(old)}\.", f"backbone.{new}.") for old, new in parts.items()])
    network = NetworkConfig("unet3d", width=len(state["conv1a.weight"]), levels=4, prior="none")
    made = _with_stem(made, ["backbone.stem.weight"], len(modalities))
    return Foreign(network, made, ("backbone.stem.", "backbone.down.", "backbone.blocks."))


def _of_swinunetr(state: State, modalities: Sequence[str]) -> Foreign:
    made = renamed(_with_linear(state), [(r"(?=patch_embed\.|layers\d\.)", "backbone.net.swinViT.")])
    stem = "backbone.net.swinViT.patch_embed.proj.weight"
    network = NetworkConfig("swinunetr", width=len(made[stem]), prior="none")
    return Foreign(network, _with_stem(made, [stem], len(modalities)), ("backbone.net.swinViT.",))


def _of_puir(state: State, modalities: Sequence[str]) -> Foreign:
    rules = [
        (r"swinViT1\.", "backbone.net.swinViT."),
        (r"(?=(encoder|decoder)\d|out\.)", "backbone.net."),
        (r"static_prior$", "prior.retrieve.prior"),
        (r"attn_for_x\.", "prior.retrieve.attention."),
        (r"tansfer_for_mod\.", "prior.fusion.before."),
        (r"fuse_to_X\.", "prior.fusion.fuse."),
    ]
    made = renamed(_with_linear(state), rules)
    stem, first = "backbone.net.swinViT.patch_embed.proj.weight", "backbone.net.encoder1.layer."
    network = NetworkConfig("swinunetr", width=len(made[stem]), prior="channel", fusion="release")
    if tuple(modalities) != RELEASED:  # other channels, so what the last layer makes is not theirs either
        stems = [stem, f"{first}conv1.conv.weight", f"{first}conv3.conv.weight"]
        made = _with_stem(made, stems, len(modalities))
        made = {name: tensor for name, tensor in made.items() if not name.startswith("backbone.net.out.")}
    return Foreign(network, made, ("backbone.net.swinViT.", "backbone.net.encoder", "prior."))


def _with_linear(state: State) -> State:
    """Older names of a Swin block's perceptron, as MONAI has them now."""
    return {name.replace(".mlp.fc", ".mlp.linear"): tensor for name, tensor in state.items()}


def _members(state: Mapping[str, Tensor], prefix: str) -> int:
    """Members of a list of modules, of which the names begin so."""
    places = [int(found[1]) for name in state if (found := re.match(rf"{re.escape(prefix)}(\d+)\.", name))]
    return max(places, default=-1) + 1


_BRAINMVP = (
    "BrainMVP-16k (BraTS 2021 and 2023, UCSF-PDGM, IXI)",
    "Rui et al., BrainMVP: Multi-modal Vision Pre-training for Brain Image Analysis using Multi-parametric MRI, 2024, "
    "https://arxiv.org/abs/2410.10604",
)
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "brainmvp": (
        Layout("encoder.uniformer.patch_embed1.proj.weight", _of_brainmvp, RELEASED, *_BRAINMVP),
        Layout("conv1a.weight", _of_brainmvp_unet, RELEASED, *_BRAINMVP),
    ),
    "swinunetr-ssl": (
        Layout(
            "patch_embed.proj.weight",
            _of_swinunetr,
            ("ct",),
            "5050 CT scans",
            "Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis, CVPR 2022, "
            "https://arxiv.org/abs/2111.14791",
        ),
    ),
    "puir": (
        Layout(
            "swinViT1.patch_embed.proj.weight",
            _of_puir,
            RELEASED,
            "BraTS 2023 GLI",
            "Tan et al., Towards a Universal 3D Medical Multi-modality Generalization via Learning Personalized "
            "Invariant Representation, ICCV 2025, https://arxiv.org/abs/2411.06106",
        ),
    ),
}
"""Name of a release -> the layouts of its weights."""


def layout_of(state: Mapping[str, Tensor], origin: str, file: object) -> Layout:
    """The layout of a release that a state has.

    Raises:
        UserError: it has none of them; the message names what it looks like.
    """
    for layout in LAYOUTS[origin]:
        if layout.mark in state:
            if state[layout.mark].ndim != 5:
                raise UserError(f"expected 3-D weights of {origin}, got {layout.mark} of another shape in {file}")
            return layout
    looks = [name for name, layouts in LAYOUTS.items() if any(layout.mark in state for layout in layouts)]
    told = f"it looks like --from {looks[0]}" if looks else f"its names begin {', '.join(list(state)[:3])}"
    marks = " or ".join(layout.mark for layout in LAYOUTS[origin])
    raise UserError(f"expected weights of {origin}, with {marks}, got others in {file}; {told}")
