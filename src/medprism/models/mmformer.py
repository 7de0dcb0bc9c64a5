"""mmFormer: a convolutional encoder and a transformer for each modality, a transformer over all, one decoder.

Zhang et al., MICCAI 2022, https://arxiv.org/abs/2206.02425. Two things differ from the code that its authors released,
each of which can be had back (`MmFormerConfig`): there the tokens that the transformer over all modalities gives are
laid out over the grid in the order in which they stand in memory, so that a voxel gets tokens of other places and of
one modality; and tokens of absent scans take part in the attention.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from medprism.errors import UserError, expect
from medprism.models.backbone import pooled
from medprism.models.mmformer_decoder import FusedDecoder, SeparateDecoder
from medprism.models.modality_encoder import EncoderConfig, ModalityEncoder
from medprism.models.prenorm import LEVELS, ConvEncoder
from medprism.models.prism import by_scan, pairs
from medprism.models.token_transformer import Places, TokenTransformer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MmFormerConfig:
    """The network's shape; the defaults are the published one.

    Attributes:
        width: channels of a modality at full resolution; they double at each of the five levels.
        dim: channels of a token.
        heads: of the attention; they divide `dim`.
        mlp: units between the linear layers of a transformer.
        depth: layers of each transformer.
        dropout: of the transformers, in training.
        reference_layout: lay the tokens over the grid as the released code does.
        mask_tokens: keep the tokens of absent scans out of the attention; in the released code each is zero plus its
            place, and is attended to.
    """

    width: int = 8
    dim: int = 512
    heads: int = 8
    mlp: int = 4096
    depth: int = 1
    dropout: float = 0.1
    reference_layout: bool = False
    mask_tokens: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "dim", "heads", "mlp", "depth"):
            expect(getattr(self, name) >= 1, "1 or more", f"mmformer.{name}", getattr(self, name))
        expect(self.dim % self.heads == 0, f"a multiple of heads ({self.heads})", "mmformer.dim", self.dim)
        expect(0 <= self.dropout < 1, "0 to below 1", "mmformer.dropout", self.dropout)


@dataclass(frozen=True)
class MmFormed:
    """What a pass gives in training.

    Attributes:
        logits: (B, K, X, Y, Z) from the given scans together, then those of the four coarser levels.
        separate: (N, K, X, Y, Z) from each of the N present scans alone.
        owner: (N,) the subject of each of these.
        source: (N,) its modality.
        z: (B, M, C, X, Y, Z) latents of the present scans, what alignment is about.
    """

    logits: list[Tensor]
    separate: Tensor
    owner: Tensor
    source: Tensor
    z: Tensor


class MmFormer(nn.Module):
    """A network that segments from any subset of M modalities.

    Args:
        config: the shape.
        alignment: of the latents z_j at the input.
        modalities: M.
        classes: K, the background included.
        patch_size: sides of the training patches in voxels; they fix the size of the tables of places, which are
            interpolated for other inputs.

    Raises:
        UserError: a patch side is no multiple of 16.
    """

    divisor = 2 ** (LEVELS - 1)

    def __init__(
        self,
        config: MmFormerConfig,
        alignment: EncoderConfig,
        modalities: int,
        classes: int,
        patch_size: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.config, self.alignment, self.modalities, self.classes = config, alignment, modalities, classes
        x, y, z = self.patch_size = tuple(patch_size)
        if x % self.divisor or y % self.divisor or z % self.divisor:
            raise UserError(
                f"expected patch sides that are multiples of {self.divisor} with mmformer, got {self.patch_size}; "
                "change patch_size"
            )
        if x == y == z == self.divisor:
            logger.warning(
                "a patch of %s has one token, and the normalisation of a single voxel leaves nothing of what the "
                "transformers say; take a larger patch_size",
                self.patch_size,
            )
        channels = tuple(config.width * 2**level for level in range(LEVELS))
        shape = (config.dim, config.heads, config.mlp, config.depth, config.dropout)
        self.latents = ModalityEncoder(alignment, modalities)
        self.encoders = nn.ModuleList(ConvEncoder(self.latents.channels, channels) for _ in range(modalities))
        self.tokens = nn.ModuleList(nn.Conv3d(channels[-1], config.dim, 1) for _ in range(modalities))
        self.places = Places(modalities, config.dim, (x // self.divisor, y // self.divisor, z // self.divisor))
        self.intra = nn.ModuleList(TokenTransformer(*shape) for _ in range(modalities))
        self.inter = TokenTransformer(*shape)
        self.inter_out = nn.Conv3d(modalities * config.dim, modalities * channels[-1], 1)
        self.fused = FusedDecoder(channels, classes, modalities)
        self.separate = SeparateDecoder(channels, classes)
        for conv in (*self.tokens, self.inter_out):
            nn.init.kaiming_normal_(cast(nn.Conv3d, conv).weight)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def architecture(self) -> dict[str, Any]:
        """What `build` needs to make this network again; plain JSON."""
        return {
            "mmformer": asdict(self.config),
            "alignment": asdict(self.alignment),
            "modalities": self.modalities,
            "classes": self.classes,
            "patch_size": list(self.patch_size),
        }

    def forward(self, images: Tensor, present: Tensor, given: Tensor) -> MmFormed:
        """A pass in training: classes from the given scans together and from each present scan alone.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `present` is False is never read.
            present: (B, M) bool, the scans that there are.
            given: (B, M) bool, the ones of these that the network may fuse, at least one True a row.
        """
        owner, source = pairs(present)
        z = self.latents(images, present)
        features = self.encode(z, present)
        if self.alignment.encoder == "joint" and not self.alignment.leaks:  # there a latent depends on what is given
            seen = self.encode(self.latents(images, given), given)
        else:
            absent = ~given[:, :, None, None, None, None]
            seen = [feature.masked_fill(absent, 0.0) for feature in features]
        separate = self.separate([feature[owner, source] for feature in features])
        return MmFormed(self.fused.heads(self.fuse(seen, given)), separate, owner, source, z)

    def segment(self, images: Tensor, present: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z) from images (B, M, X, Y, Z) where `present` (B, M)."""
        levels = self.fuse(self.encode(self.latents(images, present), present), present)
        return cast(Tensor, self.fused.head(levels[0]))

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Pooled coarsest features of each present scan by itself: (B, M, C), zero where absent."""
        return by_scan(pooled(self.scan_maps(images, present)), present)

    def scan_maps(self, images: Tensor, present: Tensor) -> Tensor:
        """Coarsest features of each of N present scans by itself: (N, C, x, y, z)."""
        return self.encode(self.latents(images, present), present)[-1][present]

    def encode(self, z: Tensor, here: Tensor) -> list[Tensor]:
        """Latents (B, M, C, X, Y, Z) to features (B, M, C_l, X/2^l, ...), fine to coarse, zero where not `here`."""
        pairs(here)  # refuses subjects without scans
        chosen = here.any(dim=0).tolist()
        found = {m: self.encoders[m](z[here[:, m], m]) for m in range(self.modalities) if chosen[m]}
        return [_beside({m: levels[level] for m, levels in found.items()}, here) for level in range(LEVELS)]

    def fuse(self, features: list[Tensor], given: Tensor) -> list[Tensor]:
        """Features of all modalities, zero where not `given`, to the fused decoder's levels (B, C_l, ...)."""
        *fine, coarsest = features
        return self.fused.fused([*(feature.flatten(1, 2) for feature in fine), self._attended(coarsest, given)])

    def _attended(self, feature: Tensor, given: Tensor) -> Tensor:
        """The coarsest feature (B, M, C, x, y, z) through both transformers: (B, M·C, x, y, z)."""
        grid = feature.shape[3:]
        places = self.places(grid)
        found = {}
        for m in range(self.modalities):
            rows = feature[given[:, m], m]
            if len(rows):
                found[m] = self.intra[m](self.tokens[m](rows).flatten(2).transpose(1, 2), places[m])
        tokens = _beside(found, given).flatten(1, 2)  # modality after modality
        here = given.repeat_interleave(places.shape[1], dim=1)
        tokens = self.inter(tokens, places.flatten(0, 1), here if self.config.mask_tokens else None)
        if self.config.mask_tokens:
            tokens = tokens.masked_fill(~here[:, :, None], 0.0)
        if not self.config.reference_layout:
            tokens = tokens.unflatten(1, (self.modalities, -1)).transpose(1, 2)
        tokens = tokens.reshape(len(tokens), *grid, self.modalities * self.config.dim)
        return cast(Tensor, self.inter_out(tokens.movedim(-1, 1)))


def _beside(found: dict[int, Tensor], here: Tensor) -> Tensor:
    """What was made of the present scans of each modality, (n_m, C, ...), side by side: (B, M, C, ...), else zero."""
    like = next(iter(found.values()))
    columns = []
    for m in range(here.shape[1]):
        rows = here[:, m].nonzero()[:, 0]
        if m in found and len(rows) == len(here):
            columns.append(found[m])
            continue
        column = like.new_zeros((len(here), *like.shape[1:]))
        columns.append(column.index_copy(0, rows, found[m]) if m in found else column)
    return torch.cat(columns, dim=1).unflatten(1, (here.shape[1], -1))  # type: ignore[no-untyped-call, no-any-return]
