"""Weights of an encoder for modalities that it has not been trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medprism.models.backbone import StemConv3d
from medprism.models.prism import Prism


def grown(
    state: Mapping[str, Tensor], network: Prism, known: Sequence[str], modalities: Sequence[str]
) -> dict[str, Tensor]:
    """A prism's weights in the shape of another one for other modalities.

    What belongs to a modality moves to its place. A new modality has no place of its own in the old weights:

    - `network.source: repeated`: a scan enters through all channels at once, so only the sum of their weights counts.
      It is kept, shared evenly: a new scan passes the very weights that the known ones pass, as in the paper, where
      NAC-PET is repeated over the channels of PET and CT (section 4.3).
    - `tagged`: its two channels of the stem, and its table of intensities, start as the mean of the known ones'; the
      scan enters as one of no known kind, and training tells it apart.

    Args:
        state: weights by name in the old prism.
        network: the new one.
        known: the old one's modalities.
        modalities: the new one's; at least one is known.

    Returns:
        All of `state` with stem and table changed; what the decoder makes of modalities is left as it is.
    """
    places = [known.index(name) if name in known else None for name in modalities]
    made = dict(state)
    for name, module in network.named_modules():
        if isinstance(module, StemConv3d) and f"{name}.weight" in state:
            weight = state[f"{name}.weight"].movedim(1, 0)  # a row for each channel of the stem
            if network.config.source == "repeated":
                rows = weight.sum(dim=0, keepdim=True).expand(len(places), *weight.shape[1:]) / len(places)
            else:
                first, second = len(known), 2 * len(known)
                scans, tags, table = weight[:first], weight[first:second], weight[second:]
                rows = torch.cat([_moved(scans, places), _moved(tags, places), table])
            made[f"{name}.weight"] = rows.movedim(0, 1).contiguous()
    if "table.values" in state:
        made["table.values"] = _moved(state["table.values"], places)
    return made


def _moved(rows: Tensor, places: Sequence[int | None]) -> Tensor:
    """Rows of known modalities in the order of `places`; for None the mean of all that are known."""
    fresh = rows.mean(dim=0)
    return torch.stack([fresh if place is None else rows[place] for place in places])
