"""Templates that stand where a scan is absent, in training and in use: frozen, read at the scans' places in the world.

Rui et al. 2024, BrainMVP (https://arxiv.org/abs/2410.10604, section 3.4), replace scans by their templates in
fine-tuning. A network that has learned so takes the template of a scan that a patient lacks as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medprism.errors import UserError
from medprism.models.atlas import Size, overhang, sample
from medprism.models.templates import Templates, load_beside

TEMPLATES = "templates"
"""What a card says under `fill` of a model whose absent scans are filled by templates."""


class Filling:
    """The templates of a model's modalities. No module: neither an optimiser nor a checkpoint finds them.

    Args:
        templates: of these modalities and maybe others; they are copied, so nothing trains them from here.
        modalities: M names, in the order of the channels.

    Raises:
        UserError: a modality has no template.
    """

    def __init__(self, templates: Templates, modalities: Sequence[str]) -> None:
        order = templates.index(modalities)
        self.volumes = templates.volumes.detach()[order]
        self.grid, self.tolerance = templates.grid, templates.tolerance

    def require_cover(self, affine: Tensor, size: Size, whose: str) -> None:
        """Refuse scans that the templates do not reach: what is beyond would be filled by the templates' border.

        Args:
            affine: (4, 4) voxel -> world mm.
            size: (X, Y, Z) in voxels.
            whose: for the message, such as `the scans of sub-001`.

        Raises:
            UserError: they reach beyond the templates' grid by more than the tolerance.
        """
        beyond = overhang(self.grid, affine.double().cpu().numpy(), size)
        if beyond > self.tolerance:
            raise UserError(
                f"expected {whose} within {self.tolerance:g} mm of the templates' grid, got some that reach "
                f"{beyond:.1f} mm beyond it; register them to the space of the templates, or crop what is outside"
            )

    @torch.no_grad()
    def at(self, affine: Tensor, size: Size, channel: Tensor) -> Tensor:
        """Templates at the voxels of crops.

        Args:
            affine: (N, 4, 4) voxel of each crop -> world mm.
            size: (X, Y, Z) of the crops.
            channel: (N,) which modality.

        Returns:
            (N, X, Y, Z) float32 on the device of `channel`; beyond the grid the values of its border.
        """
        self.volumes = self.volumes.to(channel.device)
        return sample(self.volumes, self.grid, affine, size, channel)[:, 0]

    def filled(self, images: Tensor, kept: Tensor, affine: Tensor) -> Tensor:
        """Scans where they are kept, templates in all other channels.

        Args:
            images: (B, M, X, Y, Z) normalised; content where `kept` is False is never read.
            kept: (B, M) bool.
            affine: (B, 4, 4) voxel of each crop -> world mm.

        Returns:
            (B, M, X, Y, Z), a new tensor.
        """
        made, (row, channel) = images.clone(), (~kept).nonzero(as_tuple=True)
        if len(row):
            x, y, z = images.shape[2:]
            made[row, channel] = self.at(affine[row.to(affine.device)], (x, y, z), channel).to(made.dtype)
        return made


def filling_of(card: Mapping[str, Any], path: Path | None) -> Filling | None:
    """What fills the absent scans of a model; None for one that takes them as absent.

    Args:
        card: of the model.
        path: its folder.

    Raises:
        UserError: its templates are missing or others than it was trained with, or it fills in an unknown way.
    """
    fill = card.get("fill")
    if fill is None:
        return None
    if fill != TEMPLATES:
        raise UserError(f"expected absent scans to be filled by {TEMPLATES}, got a model with {fill}; update medprism")
    if path is None:
        raise UserError("expected a model with its templates beside it, got one in memory; load it from its folder")
    return Filling(load_beside(path), card["modalities"])
