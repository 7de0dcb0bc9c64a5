"""Sliding windows over one subject: empty windows are skipped, every output is made in the same pass."""

import math
from collections.abc import Callable, Sequence

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor
from torch.nn import functional as F

# (B, M, X, Y, Z) images, (B, M) present -> what the network makes of them
Windowed = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]  # windows done, windows in all


def slide(
    make: Windowed,
    images: Tensor,
    present: Tensor,
    patch_size: Sequence[int],
    *,
    overlap: float = 0.5,
    batch: int = 1,
    foreground: Tensor | None = None,
    background: Tensor | None = None,
    outside: Tensor | None = None,
    given: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Runs `make` over overlapping windows and blends them by a Gaussian that falls towards each window's border.

    Only windows with foreground are run. A voxel of the foreground lies in such windows alone, so skipping changes
    nothing there. Voxels in no window get the value of `outside`.

    Args:
        make: (B, M, x, y, z) windows and (B, M) present to K outputs (B, K, x, y, z), on any device; K is M where
            modalities are generated, and the number of classes in segmentation.
        images: (M, X, Y, Z) normalised; where `present` is False the content is never read.
        present: (M,) bool.
        patch_size: x, y, z in voxels; a volume that is smaller is padded by the background and cut back.
        overlap: share of a window that the next one covers, in [0, 1).
        batch: windows per call.
        foreground: (X, Y, Z) bool; None means wherever a present scan differs from its background value.
        background: (M,) the normalised value of air in each modality; None means zeros.
        outside: (K,) each output's value where no window lies; None means `background`, for K = M.
        given: (M,) bool, what `make` is told to be present; None means `present`. Fewer than there are shows a leak.
        progress: called after each batch.

    Returns:
        (K, X, Y, Z) float32 on the device of `images`.
    """
    images, background, where = _tidy(images, present, foreground, background)
    told = present if given is None else given
    outside = background if outside is None else outside.to(images.device, torch.float32)
    images, where, offset = _padded(images, where, patch_size, torch.where(present, background, 0.0))
    windows = _windows(where, patch_size, overlap)
    weight = compute_importance_map(tuple(patch_size), mode="gaussian", device=images.device, dtype=torch.float32)
    total = images.new_zeros((len(outside), *images.shape[1:]))
    count = torch.zeros_like(images[0])
    for first in range(0, len(windows), batch):
        some = windows[first : first + batch]
        stack = torch.stack([images[:, *window] for window in some])
        made = make(stack, told.expand(len(some), -1)).to(images.device, torch.float32)
        for window, one in zip(some, made, strict=True):
            total[:, *window] += weight * one
            count[window] += weight
        if progress is not None:
            progress(min(first + batch, len(windows)), len(windows))
    covered = count > 0
    total /= count.masked_fill_(~covered, 1.0)  # in place: of a large CT each copy is a gigabyte
    for output, value in zip(total, outside.tolist(), strict=True):
        output.masked_fill_(~covered, value)
    return total[:, *offset]


def slide_embed(
    embed: Windowed,
    images: Tensor,
    present: Tensor,
    patch_size: Sequence[int],
    *,
    overlap: float = 0.0,
    batch: int = 1,
    foreground: Tensor | None = None,
    background: Tensor | None = None,
) -> Tensor:
    """One vector per present scan: the mean over windows, each weighted by how much foreground it holds.

    Args:
        embed: (B, M, x, y, z) windows and (B, M) present to (B, M, C).
        images: (M, X, Y, Z), as in `slide`, as are the other arguments.
        present: (M,) bool.
        patch_size: x, y, z in voxels.
        overlap: share of a window that the next one covers, in [0, 1).
        batch: windows per call.
        foreground: (X, Y, Z) bool or None.
        background: (M,) or None.

    Returns:
        (M, C) float32; rows of absent scans are zero.

    Raises:
        ValueError: there is no foreground at all.
    """
    mean = slide_mean(
        embed,
        images,
        present,
        patch_size,
        overlap=overlap,
        batch=batch,
        foreground=foreground,
        background=background,
    )
    return torch.where(present[:, None], mean, 0.0)


def slide_mean(
    features: Windowed,
    images: Tensor,
    present: Tensor,
    patch_size: Sequence[int],
    *,
    overlap: float = 0.0,
    batch: int = 1,
    foreground: Tensor | None = None,
    background: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Mean of what `features` makes of the windows, each weighted by how much foreground it holds.

    Args:
        features: (B, M, x, y, z) windows and (B, M) present to (B, ...), any shape.
        images: (M, X, Y, Z), as in `slide`, as are the other arguments.
        present: (M,) bool.
        patch_size: x, y, z in voxels.
        overlap: share of a window that the next one covers, in [0, 1).
        batch: windows per call.
        foreground: (X, Y, Z) bool or None.
        background: (M,) or None.
        progress: called after each batch.

    Returns:
        (...) float32, the shape of one window's.

    Raises:
        ValueError: there is no foreground at all.
    """
    images, background, where = _tidy(images, present, foreground, background)
    images, where, _ = _padded(images, where, patch_size, torch.where(present, background, 0.0))
    windows = _windows(where, patch_size, overlap)
    if not windows:
        raise ValueError("no window holds any foreground")
    weight = torch.stack([where[window].sum() for window in windows]).float()
    made = []
    for first in range(0, len(windows), batch):
        some = windows[first : first + batch]
        stack = torch.stack([images[:, *window] for window in some])
        made.append(features(stack, present.expand(len(some), -1)).to(images.device))
        if progress is not None:
            progress(min(first + batch, len(windows)), len(windows))
    return torch.einsum("n,n...->...", weight / weight.sum(), torch.cat(made).float())


def _tidy(
    images: Tensor, present: Tensor, foreground: Tensor | None, background: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images with absent scans zeroed, background values and foreground."""
    air = torch.zeros(len(images)) if background is None else background
    air = air.to(images.device, torch.float32)
    if not present.all() or images.dtype != torch.float32:
        images = torch.where(present[:, None, None, None], images.float(), 0.0)
    if foreground is None:
        foreground = (images[present] != air[present, None, None, None]).any(0)
    return images, air, foreground


def _padded(
    images: Tensor, where: Tensor, patch_size: Sequence[int], fill: Tensor
) -> tuple[Tensor, Tensor, tuple[slice, ...]]:
    """Volume and foreground of at least `patch_size`, and where the old volume lies in the new one."""
    shape = images.shape[1:]
    short = [max(patch - size, 0) for patch, size in zip(patch_size, shape, strict=True)]
    inner = tuple(slice(gap // 2, gap // 2 + size) for gap, size in zip(short, shape, strict=True))
    if any(short):
        pads = [side for gap in reversed(short) for side in (gap // 2, gap - gap // 2)]
        where = F.pad(where, pads)
        values = fill.tolist()
        images = torch.stack([F.pad(image, pads, value=value) for image, value in zip(images, values, strict=True)])
    return images, where, inner


def _windows(where: Tensor, patch_size: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """All windows that hold foreground, by MONAI's enumeration."""
    step = [max(math.floor(patch * (1 - overlap)), 1) for patch in patch_size]
    return [window for window in dense_patch_slices(where.shape, patch_size, step) if where[window].any()]
