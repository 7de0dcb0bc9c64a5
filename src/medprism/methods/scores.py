"""Scores of validation crops, by which the best weights of a training are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medprism.data.batch import Batch
from medprism.models.prism import Prism


def transfer_psnr(network: Prism, batch: Batch, given: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
    """PSNR of each (subject, source, target ≠ source), on normalised intensities in the source's foreground.

    All crops of a subject count as one volume. A mean over crops would be ruled by those in which there is little to
    tell, and chose early weights that had learned nothing of air.

    Args:
        network: the network.
        batch: B sub-volumes.
        given: (B, M) bool, the sources; all that are present if None.
        wanted: (B, M) bool, the targets; all that are present if None.

    Returns:
        (P,) dB, for P pairs of present scans; the data range is the target's in the subject's crops.
    """
    given = batch.present if given is None else given
    wanted = batch.present if wanted is None else wanted
    owner, source = given.nonzero(as_tuple=True)
    *_, images = network(batch.images[given][:, None], source)
    errors: dict[tuple[str, int, int], list[Tensor]] = {}
    targets: dict[tuple[str, int, int], list[Tensor]] = {}
    for row, (b, s) in enumerate(zip(owner.tolist(), source.tolist(), strict=True)):
        mask = batch.foreground[b, s]
        for t in wanted[b].nonzero()[:, 0].tolist():
            if t != s and bool(mask.any()):
                target = batch.images[b, t][mask]
                errors.setdefault((batch.subject[b], s, t), []).append((images[row, t].float()[mask] - target) ** 2)
                targets.setdefault((batch.subject[b], s, t), []).append(target)
    return psnr(errors, targets)


def psnr(errors: Mapping[Any, list[Tensor]], targets: Mapping[Any, list[Tensor]]) -> Tensor:
    """PSNR of volumes of which several crops are scored.

    Args:
        errors: squared errors of the voxels of each crop, for each of P volumes; volumes without voxels are left out.
        targets: the true values, which give the data range.

    Returns:
        (P,) dB.
    """
    scores = []
    for volume, parts in errors.items():
        values, found = torch.cat(targets[volume]), torch.cat(parts)
        if len(found):
            span = (values.max() - values.min()).clamp(min=1e-6)
            scores.append(10 * torch.log10(span**2 / found.mean().clamp(min=1e-12)))
    return torch.stack(scores) if scores else torch.empty(0)
