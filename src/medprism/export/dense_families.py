"""mmFormer, PMKL's teacher and student, and ACN for graphs; see `medprism.export.dense` for why and how."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medprism.models.acn import ACN
from medprism.models.mmformer import MmFormer
from medprism.models.pmkl import Student, Teacher


class DenseMmFormer(nn.Module):
    """Logits (B, K, X, Y, Z) from the scans present; see `MmFormer.segment`."""

    def __init__(self, network: MmFormer) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to logits."""
        net = self.network
        levels = _each(net.encoders, net.latents(images, present), present)
        *fine, coarsest = levels
        fused = net.fused.fused([*(level.flatten(1, 2) for level in fine), self._attended(coarsest, present)])
        logits: Tensor = net.fused.head(fused[0])
        return logits

    def _attended(self, feature: Tensor, present: Tensor) -> Tensor:
        """The coarsest feature (B, M, C, x, y, z) through both transformers: (B, M·C, x, y, z)."""
        net, grid = self.network, feature.shape[3:]
        places = net.places(grid)
        found = [
            intra(embed(feature[:, m]).flatten(2).transpose(1, 2), places[m])
            for m, (embed, intra) in enumerate(zip(net.tokens, net.intra, strict=True))
        ]
        tokens = torch.where(present[:, :, None, None], torch.stack(found, dim=1), 0.0).flatten(1, 2)
        here = present[:, :, None].expand(-1, -1, places.shape[1]).flatten(1)
        masks = net.config.mask_tokens
        tokens = net.inter(tokens, places.flatten(0, 1), here if masks else None)
        if masks:
            tokens = torch.where(here[:, :, None], tokens, 0.0)
        if not net.config.reference_layout:
            tokens = tokens.unflatten(1, (net.modalities, -1)).transpose(1, 2)  # type: ignore[no-untyped-call]
        tokens = tokens.flatten(1).unflatten(1, (*grid, net.modalities * net.config.dim))  # type: ignore[no-untyped-call]
        out: Tensor = net.inter_out(tokens.movedim(-1, 1))
        return out


class DenseTeacher(nn.Module):
    """Logits (B, K, X, Y, Z) from the scans present; see `Teacher.segment`."""

    def __init__(self, network: Teacher) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to logits."""
        net = self.network
        levels = _each(net.encoders, net.latent(images, present), present)
        logits: Tensor = net.decoder([fuse(level) for fuse, level in zip(net.fusions, levels, strict=True)])[0]
        return logits


class DenseStudent(nn.Module):
    """Logits (B, K, X, Y, Z) from the scans present; see `Student.segment`."""

    def __init__(self, network: Student) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to logits."""
        here = present[:, :, None, None, None]
        mean = images.sum(dim=1, keepdim=True) / here.sum(dim=1, keepdim=True)
        logits: Tensor = self.network.decoder(self.network.encoder(torch.where(here, images, mean)))[0]
        return logits


class DenseACN(nn.Module):
    """Logits (B, K, X, Y, Z) of the incomplete path, zero for the background; see `ACN.segment`."""

    def __init__(self, network: ACN) -> None:
        super().__init__()
        self.path, self.places = network.incomplete, network.places

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z), zero where not `present` (B, M), to logits."""
        logits = self.path.decode(self.path.encode(torch.stack([images[:, place] for place in self.places], dim=1)))
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


def _each(encoders: nn.ModuleList, latents: Tensor, present: Tensor) -> list[Tensor]:
    """Latents (B, M, C, X, Y, Z), each through its own encoder: (B, M, C_l, x, y, z) fine to coarse, zero if absent."""
    found = [encoder(latents[:, m]) for m, encoder in enumerate(encoders)]
    here = present[:, :, None, None, None, None]
    return [torch.where(here, torch.stack(level, dim=1), 0.0) for level in zip(*found, strict=True)]
