"""The names of modalities: one canonical name each, one table of aliases, one nature.

Names are compared without case and without anything but letters and digits, so that `T1-Gd`, `t1_gd` and `T1Gd` are
one name. Canonical names of brain MRI are those of BraTS 2023 and later.
"""

import difflib
import re
from typing import Literal

from medprism.errors import UserError

Kind = Literal["mri", "ct", "pet", "nac"]

_NAMES: dict[str, tuple[str, ...]] = {
    "t1n": ("t1", "t1w", "t1pre", "t1native", "t1weighted", "mrt1", "mrit1", "t1mr", "t1mri"),
    "t1c": ("t1ce", "t1gd", "t1gad", "t1post", "t1km", "t1contrast", "t1wce", "t1wgd", "t1wcegad", "t1cegadolinium"),
    "t2w": ("t2", "t2weighted", "mrt2", "mrit2"),
    "t2f": ("flair", "fla", "t2flair", "t2wflair", "mrflair"),
    "pd": ("pdw", "protondensity"),
    "mra": ("angio", "tof", "tofmra", "mrangio"),
    "dwi": ("diffusion", "b1000"),
    "adc": ("adcmap",),
    "ct": ("ctres", "ctonpet", "cthu", "ldct"),
    "pet": ("suv", "suvbw", "petsuv", "petac", "acpet", "petacsuv", "petacsuvbw", "fdg", "fdgpet"),
    "nac": ("nacpet", "petnac", "petnoac"),
}

MODALITIES: tuple[str, ...] = tuple(_NAMES)
"""Canonical names, in the order in which a cohort lists them unless it says otherwise."""

ALIASES: dict[str, str] = {
    alias: name for name, aliases in _NAMES.items() for alias in (name, *aliases)
}  # keys: lower case, letters and digits only
"""Every accepted spelling (lower case, letters and digits only) → canonical name."""

KIND: dict[str, Kind] = {
    **dict.fromkeys(MODALITIES, "mri"),
    "ct": "ct",
    "pet": "pet",
    "nac": "nac",
}
"""Canonical name → nature: what decides on the normaliser and the unit (a.u., HU, SUV, a.u.)."""


def lookup(name: str) -> str | None:
    """Canonical name of a modality, or None when `name` is not one (a file that is something else)."""
    return ALIASES.get(_key(name))


def canonical(name: str) -> str:
    """Canonical name of a modality: `canonical("FLAIR") == "t2f"`.

    Raises:
        UserError: If the name is unknown; the nearest names are suggested.
    """
    found = lookup(name)
    if found is None:
        raise UserError(f"expected a modality ({' '.join(MODALITIES)}, or an alias), got {name!r}; {nearest(name)}")
    return found


def nearest(name: str) -> str:
    """What to do about an unknown modality name: the nearest names, best first."""
    keys = difflib.get_close_matches(_key(name), ALIASES, n=6, cutoff=0.5)
    names = list(dict.fromkeys(ALIASES[key] for key in keys))[:3]
    return f"did you mean {' or '.join(names)}?" if names else "rename it to one of these"


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
