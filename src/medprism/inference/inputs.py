"""What was given and what is wanted, checked against what a model knows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from medprism.data.modalities import canonical
from medprism.errors import UserError
from medprism.io.nifti import Scan, read_scan

Image = str | Path | Scan
T = TypeVar("T")


def by_name(images: Mapping[str, T], modalities: Sequence[str]) -> dict[str, T]:
    """What is given, by canonical name in the model's order.

    Args:
        images: modality (any alias) -> file or scan.
        modalities: the model's.

    Raises:
        UserError: nothing, a modality that the model does not know, or two of one.
    """
    known: dict[str, T] = {}
    for name, image in images.items():
        modality = canonical(name)
        if modality not in modalities:
            raise UserError(f"expected scans among {', '.join(modalities)}, which the model knows, got {name}")
        if modality in known:
            raise UserError(f"expected one scan of {modality}, got two ({name} is the second); leave one out")
        known[modality] = image
    if not known:
        raise UserError(f"expected at least one scan of {', '.join(modalities)}, got none; give --image.NAME FILE")
    return {name: known[name] for name in modalities if name in known}


def read_scans(images: Mapping[str, Image], modalities: Sequence[str]) -> dict[str, Scan]:
    """Scans as `by_name` has them; none is read before all names are known to be right.

    Raises:
        UserError: as for `by_name`, a file that is no sound scan, or one that is given twice.
    """
    scans: dict[str, Scan] = {}
    files: dict[Path, str] = {}
    for name, image in by_name(images, modalities).items():
        if not isinstance(image, Scan) and (other := files.setdefault(Path(image).resolve(), name)) != name:
            raise UserError(f"expected a file for each scan, got {image} for both {other} and {name}; leave one out")
        scans[name] = image if isinstance(image, Scan) else read_scan(image)
        if not np.isfinite(scans[name].array).all():  # of a scan made in memory; files are checked on reading
            raise UserError(f"expected finite values in the {name} scan, got NaN or infinity; replace them")
    return scans


def choose_targets(target: str | Iterable[str], given: Iterable[str], makes: Sequence[str]) -> tuple[str, ...]:
    """The modalities to make, in the model's order.

    Args:
        target: a modality (any alias), several, or `all` that are not given.
        given: canonical names.
        makes: what the model makes, in its order.

    Raises:
        UserError: a modality that the model does not make, or none is left.
    """
    given = list(given)
    if target == "all":
        wanted = [name for name in makes if name not in given]
        if not wanted:
            raise UserError(f"expected an absent modality to make, got all of {', '.join(given)}; name a --target")
    else:
        wanted = [canonical(name) for name in ([target] if isinstance(target, str) else target)]
    for name in wanted:
        if name not in makes:
            raise UserError(f"expected a target among {', '.join(makes)} (or all), got {name}")
    return tuple(name for name in makes if name in wanted)


def choose_reference(asked: str | None, given: Iterable[str], preferred: str | None) -> str | None:
    """The modality whose grid is used: the one asked for, else the one that the recipe prefers.

    Raises:
        UserError: the one asked for is not given.
    """
    if asked is None:
        return preferred
    given = list(given)
    if canonical(asked) not in given:
        raise UserError(f"expected a reference among the given scans ({', '.join(given)}), got {asked}")
    return canonical(asked)
