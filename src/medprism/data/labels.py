"""What the numbers in a label file mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError


def relabel(
    label: NDArray[Any], labels: Mapping[str, int], label_map: Mapping[int, int], where: str
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Values of a label file → values of `labels`.

    Args:
        label: Integers as read from the file, any shape.
        labels: Name → value that is meant.
        label_map: Value in the file → value that is meant; others stay.
        where: Subject or file, for the message.

    Returns:
        uint8, or uint16 when `labels` has values above 255; the same shape.

    Raises:
        UserError: If a value is outside the declared set.
    """
    known = set(labels.values())
    stored, position = np.unique(label, return_inverse=True)
    meant = [label_map.get(int(value), int(value)) for value in stored]
    strange = [int(old) for old, new in zip(stored, meant, strict=True) if new not in known]
    if strange:
        raise UserError(
            f"{where}: expected label values {sorted(known | set(label_map))}, got also {strange[:8]}; "
            "name them under `labels` in the cohort file, or map them under `label_map`"
        )
    out: NDArray[Any] = np.array(meant, np.uint8 if max(known) <= 255 else np.uint16)[position.reshape(np.shape(label))]
    return out


def numbered(values: set[int]) -> dict[str, int]:
    """Names for the values of label files that nobody named: `label_3` for 3."""
    return {"background": 0} | {f"label_{value}": value for value in sorted(values - {0})}
