"""Scores of validation crops, by which the best weights of a training are chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from medprism.data.batch import Batch
from medprism.models.prism import Prism


def transfer_psnr(network: Prism, batch: Batch) -> Tensor:
    """PSNR of each (subject, source, target ≠ source), on normalised intensities in the source's foreground.

    Args:
        network: the network.
        batch: B sub-volumes.

    Returns:
        (P,) dB, for P pairs of present scans; the data range is the target's in its sub-volume.
    """
    owner, source = batch.present.nonzero(as_tuple=True)
    *_, images = network(batch.images[batch.present][:, None], source)
    scores = []
    for row, (b, s) in enumerate(zip(owner.tolist(), source.tolist(), strict=True)):
        mask = batch.foreground[b, s]
        for t in batch.present[b].nonzero()[:, 0].tolist():
            if t == s or not bool(mask.any()):
                continue
            target = batch.images[b, t][mask]
            error = torch.mean((images[row, t].float()[mask] - target) ** 2)
            span = (target.max() - target.min()).clamp(min=1e-6)
            scores.append(10 * torch.log10(span**2 / error.clamp(min=1e-12)))
    return torch.stack(scores) if scores else torch.empty(0)
