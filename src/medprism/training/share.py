"""Label efficiency: which of the training persons have their labels or classes used."""

from __future__ import annotations

from collections.abc import Sequence

from medprism.data.cache import Entry
from medprism.data.randomness import rng
from medprism.errors import expect


def check_fraction(fraction: float) -> None:
    """Refuse what is no share.

    Raises:
        UserError: it is not above 0 and up to 1.
    """
    expect(0 < fraction <= 1, "a share above 0 up to 1", "fraction", fraction)


def share_of(entries: Sequence[Entry], fraction: float, seed: int, *, by_class: bool = False) -> list[Entry]:
    """The subjects of a share of the persons, one at least; a larger share holds all of a smaller one.

    Args:
        entries: the training split.
        fraction: above 0, up to 1.
        seed: another seed, other persons.
        by_class: take the share within the persons of each class, so that a small one keeps all classes and their
            balance; persons whose visits differ in class are a class of their own.
    """
    classes: dict[str, set[int | None]] = {}
    for entry in entries:
        classes.setdefault(entry.person, set()).add(entry.class_label if by_class else None)
    persons = sorted(classes)
    order = [persons[place] for place in rng(seed, "share of the labels").permutation(len(persons))]
    alike: dict[frozenset[int | None], list[str]] = {}
    for person in order:
        alike.setdefault(frozenset(classes[person]), []).append(person)
    chosen = {person for own in alike.values() for person in own[: max(1, round(fraction * len(own)))]}
    return [entry for entry in entries if entry.person in chosen]
