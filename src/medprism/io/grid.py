"""Sampling grids in world space: how two of them relate, and moving an array from one to the other.

A grid is a shape and an affine from RAS+ voxel indices to world millimetres. The scans of one person share one world
space by contract, so scans on different grids are resampled and never have their headers edited to make them fit.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError

Relation: TypeAlias = Literal["same_grid", "same_space", "apart"]

# Two grids are one when no voxel is displaced by more than this part of the smaller voxel side: headers hold float32
# numbers and quaternions, which alone move a corner by some hundredths of a millimetre.
TOLERANCE_VOXELS = 0.05
# Of the smaller field of view, the part that must lie in the larger one. A whole-body PET holds all of a local MR; two
# scans with less in common than half of the smaller were almost surely never registered.
LEAST_OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxel centres in world space.

    Attributes:
        shape: Voxels along X, Y, Z.
        affine: (4, 4) float64, RAS+ voxel index -> world mm. Read-only.

    Raises:
        ValueError: The shape is not three positive numbers or the affine is singular (see `affine_defect`).
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            msg = f"a grid needs three positive sizes, got {self.shape}"
            raise ValueError(msg)
        affine = np.array(self.affine, dtype=np.float64)
        if defect := affine_defect(affine):
            msg = f"a grid needs an invertible (4, 4) affine, got one {defect}"
            raise ValueError(msg)
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along X, Y, Z in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def centre(self) -> NDArray[np.float64]:
        """(3,) centre of the field of view in world mm."""
        return self.world((np.array(self.shape) - 1) / 2)

    @property
    def corners(self) -> NDArray[np.float64]:
        """(8, 3) outer corners of the field of view in world mm: half a voxel beyond the outermost centres."""
        unit = np.indices((2, 2, 2)).reshape(3, -1).T
        return self.world(unit * np.array(self.shape) - 0.5)

    @property
    def volume(self) -> float:
        """Volume of the field of view in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) * np.prod(self.shape))

    def world(self, voxels: NDArray[Any]) -> NDArray[np.float64]:
        """World mm of voxel coordinates (..., 3)."""
        return np.asarray(voxels @ self.affine[:3, :3].T + self.affine[:3, 3])

    def voxel(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Voxel coordinates of world points (..., 3) in mm: the inverse of `world`."""
        return np.asarray((points - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T)

    def crop(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> "Grid":
        """The box of this lattice that begins at voxel `start`; it may reach outside."""
        affine = self.affine.copy()
        affine[:3, 3] = self.world(np.array(start))
        return Grid(shape, affine)


def affine_defect(affine: NDArray[np.float64]) -> str | None:
    """What makes a matrix useless as voxel-to-world affine, or None when it is sound."""
    if affine.shape != (4, 4):
        return f"of shape {affine.shape}"
    if not np.isfinite(affine).all():
        return "with NaN or infinite entries"
    if not np.array_equal(affine[3], (0, 0, 0, 1)):
        return "whose last row is not 0 0 0 1"
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    # Written so that NaN, which numbers near the end of float64 lead to, is a defect too.
    if not ((sides > 0).all() and abs(np.linalg.det(affine[:3, :3] / sides)) >= 1e-3):
        return "that is singular (an axis is zero or two axes are parallel)"
    return None


def distance(a: Grid, b: Grid) -> float:
    """Distance between the centres of two fields of view in mm."""
    return float(np.linalg.norm(a.centre - b.centre))


def overlap(a: Grid, b: Grid) -> float:
    """Part (0 to 1) of the smaller field of view that lies in the larger, estimated at 16³ points spread evenly."""
    small, large = sorted((a, b), key=lambda grid: grid.volume)
    steps = (np.arange(16) + 0.5) / 16
    points = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1) * np.array(small.shape) - 0.5
    found = large.voxel(small.world(points))
    return float(((found >= -0.5) & (found <= np.array(large.shape) - 0.5)).all(axis=-1).mean())


def relation(a: Grid, b: Grid, tolerance_mm: float | None = None) -> Relation:
    """How two grids relate: one lattice, one world space, or neither.

    Args:
        a: A grid.
        b: Another.
        tolerance_mm: The most that a voxel may be displaced within `same_grid`; by default 5 % of the smallest side of
            a voxel of either.

    Returns:
        `same_grid` (equal shape, every voxel at the same place), `same_space` (fields of view have at least half of
        the smaller one in common) or `apart`.
    """
    if tolerance_mm is None:
        tolerance_mm = TOLERANCE_VOXELS * min(*a.spacing, *b.spacing)
    # The displacement is affine in the voxel index, so it is largest at a corner.
    if a.shape == b.shape and np.linalg.norm(a.corners - b.corners, axis=1).max() <= tolerance_mm:
        return "same_grid"
    return "same_space" if overlap(a, b) >= LEAST_OVERLAP else "apart"


def require_same_space(a: Grid, b: Grid, *, name_a: str, name_b: str) -> Relation:
    """`relation`, refusing scans that cannot be of one person in one world space.

    Raises:
        UserError: The fields of view are apart.
    """
    found = relation(a, b)
    if found == "apart":
        msg = (
            f"expected {name_a} and {name_b} in one world space, got centres {distance(a, b):.0f} mm apart with "
            f"{overlap(a, b):.0%} of the smaller field of view in common; register one to the other first"
        )
        raise UserError(msg)
    return found


def respaced(grid: Grid, spacing: tuple[float, float, float]) -> Grid:
    """The grid of another spacing over the same field of view.

    It has the same centre and directions and covers the old field of view; when the extent is no multiple of the
    spacing it reaches beyond by less than half a voxel on each side.

    Args:
        grid: The old grid.
        spacing: Wanted voxel sides in mm.

    Raises:
        ValueError: A spacing that is not positive.
    """
    if not all(np.isfinite(side) and side > 0 for side in spacing):
        msg = f"spacing must be three positive lengths in mm, got {spacing}"
        raise ValueError(msg)
    factor = np.array(spacing) / np.array(grid.spacing)
    shape = np.maximum(1, np.ceil(np.array(grid.shape) / factor - 1e-3)).astype(int)
    affine = grid.affine.copy()
    affine[:3, :3] *= factor
    affine[:3, 3] = grid.centre - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
