"""Learnable templates: one volume per modality on an atlas grid, addressed by world coordinates.

BrainMVP (Rui et al. 2024, https://arxiv.org/abs/2410.10604, section 3.2) hides parts of a scan behind the template of
its modality, which learns by that to be what the scans of a modality have in common. There a template is laid on a crop
by centring a box; here each voxel of a crop has a place in the world, and so has each voxel of a template.

Templates hold normalised intensities, as scans do. Give them to the optimiser without weight decay and without
clipping (`unregularised` of an objective): decay would pull them to 0 where no crop was for a while, and many thousand
voxels' gradients would take all of the norm that the network's are clipped to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medprism.data.modalities import lookup
from medprism.data.randomness import torch_rng
from medprism.errors import UserError, expect
from medprism.io.atomic import refuse_existing
from medprism.io.geometry import resample
from medprism.io.grid import Grid, relation
from medprism.io.nifti import new_scan, read_scan, save_like
from medprism.models.atlas import Size, head_grid, overhang, sample
from medprism.models.folder import find_model, load_card

FOLDER = "templates"
"""Beside a model's weights."""
NOISE = 0.01  # spread at the start, in standard deviations of a scan
TOLERANCE_MM = 5.0


@dataclass(frozen=True)
class TemplatesConfig:
    """Where templates are, and as what they begin.

    Attributes:
        start: `noise`, which is nearly 0 everywhere, or the `mean` of training scans.
        grid: `cohort`, laid around its scans; or `head`, that of a head in MNI space, for cohorts that are registered
            to it and share templates.
        spacing: side of a voxel in mm; scans need not have the same.
        tolerance: mm that scans may reach beyond the grid.
    """

    start: Literal["noise", "mean"] = "noise"
    grid: Literal["cohort", "head"] = "cohort"
    spacing: float = 2.0
    tolerance: float = TOLERANCE_MM

    def __post_init__(self) -> None:
        expect(0 < self.spacing < np.inf, "a positive length in mm", "templates.spacing", self.spacing)
        expect(0 <= self.tolerance < np.inf, "0 mm or more", "templates.tolerance", self.tolerance)


class Templates(nn.Module):
    """One learnable volume per modality.

    Args:
        modalities: S names.
        grid: where they are; a head in MNI space if not given, see `covering_grid` for one that covers a cohort.
        seed: of the noise that they begin as.
        tolerance: mm that a crop may reach beyond the outermost voxel centres, where the nearest value is taken.

    Attributes:
        volumes: (S, X, Y, Z) float32, the templates.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        grid: Grid | None = None,
        *,
        seed: int = 0,
        tolerance: float = TOLERANCE_MM,
    ) -> None:
        super().__init__()
        self.modalities, self.grid, self.tolerance = tuple(modalities), grid or head_grid(), tolerance
        shape = self.grid.shape
        begin = [torch.randn(shape, generator=torch_rng(seed, "template", name)) for name in self.modalities]
        self.volumes = nn.Parameter(NOISE * torch.stack(begin))

    @property
    def identity(self) -> str:
        """SHA-256 in hex of names, grid and values, as a card records it; the order of the templates is no part of it.

        The grid counts as far as files keep it: its affine in float32.
        """
        found = hashlib.sha256()
        place = np.asarray(self.grid.affine, dtype="<f4").tobytes()
        for name, volume in sorted(zip(self.modalities, self.volumes.detach().cpu().numpy(), strict=True)):
            found.update(f"{name} {'×'.join(map(str, volume.shape))} ".encode() + place)
            found.update(np.ascontiguousarray(volume, dtype="<f4").tobytes())
        return found.hexdigest()

    def index(self, names: Iterable[str]) -> list[int]:
        """Which template each modality has.

        Raises:
            UserError: one has none.
        """
        wanted = list(names)
        if missing := [name for name in wanted if name not in self.modalities]:
            raise UserError(
                f"expected a template for each of {' '.join(wanted)}, got none for {' '.join(missing)}, but those of "
                f"{' '.join(self.modalities)}; leave these scans out, or pre-train with them"
            )
        return [self.modalities.index(name) for name in wanted]

    def forward(self, affine: Tensor, size: Size, modality: Tensor, subjects: Sequence[str] = ()) -> Tensor:
        """The templates at the voxels of crops.

        Args:
            affine: (B, 4, 4) voxel of each crop -> world mm, as batches have it.
            size: (X, Y, Z) of the crops.
            modality: (B,) index of the template, see `index`.
            subjects: B names, for the message.

        Returns:
            (B, 1, X, Y, Z) float32. Gradients reach the voxels of the templates around the crops and no others.

        Raises:
            UserError: a crop reaches beyond the grid by more than the tolerance.
        """
        self.check_cover(affine, size, subjects)
        return sample(self.volumes, self.grid, affine, size, modality)

    def check_cover(self, affine: Tensor, size: Size, subjects: Sequence[str] = ()) -> None:
        """Refuse crops (or whole scans) that the grid does not cover; arguments as of `forward`.

        Raises:
            UserError: one reaches beyond the grid by more than the tolerance.
        """
        beyond = [overhang(self.grid, matrix, size) for matrix in affine.detach().cpu().double().numpy()]
        worst = int(np.argmax(beyond))
        if beyond[worst] > self.tolerance:
            whose = f" of {subjects[worst]}" if subjects else ""
            raise UserError(
                f"expected the templates' grid to cover each crop to {self.tolerance:g} mm, got one{whose} that "
                f"reaches {beyond[worst]:.1f} mm beyond it; lay the grid around the cohort's scans, or register them "
                "to the space of the templates"
            )

    @torch.no_grad()
    def set(self, modality: str, array: NDArray[np.float32], grid: Grid) -> None:
        """Begin a template as an image, e.g. the mean of some scans.

        Args:
            modality: of the template.
            array: (X, Y, Z) normalised intensities.
            grid: where it is; resampled to the templates' grid, 0 outside of it.

        Raises:
            UserError: there is no such template.
        """
        [number] = self.index([modality])
        self.volumes[number] = torch.from_numpy(resample(array, grid, self.grid)).to(self.volumes)

    def save(self, folder: Path, *, force: bool = False) -> list[Path]:
        """Write `<modality>.nii.gz` for each template, in normalised intensities.

        Args:
            folder: where to; made if needed.
            force: overwrite.

        Returns:
            The files.

        Raises:
            UserError: a file exists and `force` is not set, or the system refuses to write.
        """
        paths = [folder / f"{name}.nii.gz" for name in self.modalities]
        for path in paths:  # all of them or none
            refuse_existing(path, force=force)
        for path, volume in zip(paths, self.volumes.detach().cpu().numpy(), strict=True):
            save_like(volume, new_scan(volume, self.grid), path, kind="image", force=force)
        return paths

    @classmethod
    def load(cls, folder: Path, *, tolerance: float = TOLERANCE_MM) -> Templates:
        """Read the templates of a folder, in the order of their names.

        Args:
            folder: with `<modality>.nii.gz` files on one grid.
            tolerance: see the class.

        Raises:
            UserError: there is none, or they are on different grids.
        """
        files = {
            name: path for path in sorted(folder.glob("*.nii.gz")) if (name := lookup(path.name[: -len(".nii.gz")]))
        }
        if not files:
            raise UserError(f"expected templates, <modality>.nii.gz, in {folder}, got none; name the folder with them")
        scans = {name: read_scan(path) for name, path in files.items()}
        first = next(iter(scans.values()))
        for scan in scans.values():
            if relation(first.grid, scan.grid) != "same_grid":
                raise UserError(f"expected templates on one grid, got another for {scan.path} than for {first.path}")
        templates = cls(tuple(scans), first.grid, tolerance=tolerance)
        templates.volumes.data = torch.from_numpy(np.stack([scan.array for scan in scans.values()]))
        return templates


def load_beside(model: Path, *, tolerance: float = TOLERANCE_MM) -> Templates:
    """The templates that were pre-trained with a model.

    Args:
        model: model or run folder.
        tolerance: see `Templates`.

    Raises:
        UserError: there is no model, it has no templates, or those beside it are others than it was trained with.
    """
    folder, wanted = find_model(model), load_card(model).get("templates")
    if wanted is None:
        raise UserError(
            f"expected a model with templates, got {model} without; pre-train one with "
            "`medprism pretrain --config brainmvp`"
        )
    templates = Templates.load(folder / FOLDER, tolerance=tolerance)
    if templates.identity != wanted:
        raise UserError(
            f"expected templates {str(wanted)[:12]}… in {folder / FOLDER}, got {templates.identity[:12]}…: they were "
            "altered or are those of another model; copy the whole model folder again"
        )
    return templates
