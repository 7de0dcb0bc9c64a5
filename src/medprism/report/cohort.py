"""The grid of subjects and scans, summed up where it would be too wide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

WIDEST = 120  # subjects of a split that are drawn one by one


@dataclass(frozen=True)
class Strip:
    """One modality in one split: which subjects have it."""

    modality: str
    cells: list[tuple[str, bool]]
    count: int


@dataclass(frozen=True)
class Side:
    """One split.

    Attributes:
        split: its name.
        subjects: how many.
        persons: how many.
        strips: one for each modality; without cells where there are too many subjects.
        combinations: the most frequent sets of scans, with their counts.
        kinds: how many different sets there are.
    """

    split: str
    subjects: int
    persons: int
    strips: list[Strip]
    combinations: list[tuple[str, int]]
    kinds: int


def sides(rows: Sequence[dict[str, str]], modalities: Sequence[str]) -> list[Side]:
    """The splits that have subjects, in the order of the rows of subjects.csv."""
    made = []
    for split in dict.fromkeys(row["split"] for row in rows):
        own = sorted((row for row in rows if row["split"] == split), key=lambda row: row["subject"])
        strips = []
        for name in modalities:
            cells = [(row["subject"], row[name] == "1") for row in own]
            count = sum(here for _, here in cells)
            strips.append(Strip(name, cells if len(own) <= WIDEST else [], count))
        sets = Counter(" ".join(name for name in modalities if row[name] == "1") for row in own)
        persons = len({row["person"] for row in own})
        made.append(Side(split, len(own), persons, strips, sets.most_common(5), len(sets)))
    return made
