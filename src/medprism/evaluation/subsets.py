"""Subsets of the modalities: which are scored, what they are called, which means are taken over them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from medprism.data.modalities import canonical
from medprism.errors import UserError
from medprism.evaluation.results import Results, Row

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

logger = logging.getLogger(__name__)

Subset = tuple[str, ...]

ONE, ALL, WITHOUT_FULL = "subset", "all-subsets", "without-full"
OVER_REGIONS = "mean"
"""The region of a mean over regions."""


def every_subset(modalities: Sequence[str]) -> list[Subset]:
    """All 2^M − 1 non-empty subsets, single modalities first, each in cohort order."""
    return [subset for size in range(1, len(modalities) + 1) for subset in combinations(modalities, size)]


def chosen(wanted: str | Sequence[str], modalities: Sequence[str]) -> list[Subset]:
    """The subsets that are asked for.

    Args:
        wanted: `all`, or subsets such as `t1n+t2f`; any alias will do.
        modalities: canonical names in cohort order.

    Returns:
        Without repetitions, in the order of `every_subset`.

    Raises:
        UserError: nothing, or a name that is none of the modalities.
    """
    words = [wanted] if isinstance(wanted, str) else list(wanted)
    if words == ["all"]:
        return every_subset(modalities)
    if not words or "all" in words:
        raise UserError(f"expected all or subsets such as {'+'.join(modalities)}, got {','.join(words) or 'nothing'}")
    asked: set[frozenset[str]] = set()
    for word in words:
        names = [canonical(name) for name in word.split("+")]
        if strange := [name for name in names if name not in modalities]:
            raise UserError(f"expected subsets of {' '.join(modalities)}, got {strange[0]} in {word}")
        asked.add(frozenset(names))
    return [subset for subset in every_subset(modalities) if frozenset(subset) in asked]


def served(wanted: Sequence[Subset], only: Sequence[str] | None, *, named: bool) -> list[Subset]:
    """Those of the subsets that a network serves, if there is `only` one that it does.

    Args:
        wanted: the subsets that are asked for.
        only: what the card says of it; None or nothing where the network serves all.
        named: whether they were asked for one by one.

    Raises:
        UserError: others were named.
    """
    if not only:
        return list(wanted)
    if named and (other := [spelled(subset) for subset in wanted if set(subset) != set(only)]):
        raise UserError(f"expected {spelled(only)}, the one subset that the model serves, got {', '.join(other)}")
    return [subset for subset in wanted if set(subset) == set(only)]


def spelled(subset: Sequence[str]) -> str:
    """A subset in one word, such as `t1n+t2f`."""
    return "+".join(subset)


def scorable(
    entries: Sequence[Entry], wanted: Sequence[Subset], cache: Cache, *, split: str, named: bool, what: str
) -> list[Subset]:
    """The subsets that some subject has all scans of.

    Args:
        entries: the subjects that can be scored.
        wanted: the subsets that are asked for.
        cache: the prepared cohort.
        split: of the subjects.
        named: whether they were asked for one by one: then there must be somebody for each.
        what: that the subjects have, in words.

    Raises:
        UserError: no subjects, or nobody for a subset that was named.
    """
    if not entries:
        raise UserError(
            f"expected subjects with {what} in split {split} of {cache.name}, got none; choose another split"
        )
    held = [{name for name, here in zip(cache.modalities, entry.present, strict=True) if here} for entry in entries]
    found = [subset for subset in wanted if any(set(subset) <= own for own in held)]
    lacking = [spelled(subset) for subset in wanted if subset not in found]
    if lacking and named:
        raise UserError(f"expected subsets that some {split} subject has, got {', '.join(lacking)}; choose others")
    if lacking:
        logger.warning("no %s subject has all of %s: not scored", split, "; ".join(lacking))
    return found


def missing(count: int) -> str:
    """The name of the mean over the subsets that lack so many modalities."""
    return f"missing-{count}"


def means_over(subsets: Collection[Subset], modalities: Sequence[str]) -> dict[str, list[Subset]]:
    """Name of each mean -> the subsets that it is over: all, all but the full one, those that lack 1, 2, … scans.

    Means that would be over nothing are left out.
    """
    own = [subset for subset in every_subset(modalities) if subset in set(subsets)]
    groups = {ALL: own, WITHOUT_FULL: [subset for subset in own if len(subset) < len(modalities)]}
    for lacking in range(1, len(modalities)):
        groups[missing(lacking)] = [subset for subset in own if len(subset) == len(modalities) - lacking]
    return {name: group for name, group in groups.items() if group}


def row_of(
    results: Results, given: Collection[str], *, region: str = OVER_REGIONS, metric: str = "dice", method: str = "model"
) -> Row:
    """What was measured with exactly these scans.

    Args:
        results: of a segmentation.
        given: modalities, in any order; any alias will do.
        region: of the results, or `mean`.
        metric: `dice` or `hd95`.
        method: `model`, `model+small`, `empty`.

    Raises:
        UserError: this was not evaluated.
    """
    names = {canonical(name) for name in given}
    rows = results.select(group=ONE, region=region, metric=metric, method=method)
    for row in rows:
        if set(row.given) == names:
            return row
    there = ", ".join(dict.fromkeys(spelled(row.given) for row in results.select(group=ONE, method=method)))
    raise UserError(
        f"expected {metric} of {region} by {method} for a subset that was evaluated ({there or 'none'}), got "
        f"{spelled(tuple(given)) or 'no scan'}; evaluate with this subset"
    )
