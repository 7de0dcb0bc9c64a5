"""What `inspect` prints: who has which scans, where they lie, what they hold, what is wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from medprism.data.checks import Checked, Facts
from medprism.data.cohort import SPLITS, Cohort
from medprism.data.modalities import KIND
from medprism.data.subject import Subject
from medprism.io import relation

_ROWS = 40  # a longer list of subjects is cut: the file has them all
_UNIT = {"ct": "HU", "pet": "SUV"}


def headline(console: Console, name: str, subjects: Sequence[Subject], where: str) -> None:
    """How many, and where from."""
    persons = len({subject.person for subject in subjects})
    size = f"{counted(len(subjects), 'subject')} of {counted(persons, 'person')}"
    console.print(f"{name}: {size}, {where}", markup=False, soft_wrap=True)


def availability(console: Console, subjects: Sequence[Checked], modalities: Sequence[str]) -> None:
    """The grid of subjects × modalities, its sums, and how many subjects have which subset."""
    table = _table("Scans: ● there, · absent, ✗ unusable", "subject")
    for column in (*modalities, "label"):
        table.add_column(column, justify="center")
    for checked in subjects[:_ROWS]:
        cells = [_mark(m in checked.subject.images, m in checked.scans) for m in modalities]
        label = _mark(checked.subject.seg is not None, not any(line.startswith("seg") for line in checked.fatal))
        table.add_row(escape(checked.subject.subject), *cells, label)
    if len(subjects) > _ROWS:
        table.add_row(f"… {len(subjects) - _ROWS} more")
    table.add_section()
    sums = [sum(m in c.subject.images for c in subjects) for m in modalities]
    table.add_row(
        f"{len(subjects)} subjects",
        *map(str, sums),
        str(sum(c.subject.seg is not None for c in subjects)),
        style="bold",
    )
    console.print(table)
    subsets = Counter(tuple(m for m in modalities if m in c.subject.images) for c in subjects)
    if len(subsets) == 1 and len(next(iter(subsets))) == len(modalities):
        console.print(f"Every subject has all {len(modalities)} modalities.")
        return
    for subset, count in subsets.most_common(2 * _ROWS):
        console.print(f"{count:6d} × {' '.join(subset) or 'no scan'}")


def geometry(console: Console, subjects: Sequence[Checked], modalities: Sequence[str]) -> None:
    """Shape, spacing and orientation by modality; how the grids of a subject relate."""
    table = _table("Geometry", "modality", "scans", "shape (RAS+)", "spacing in mm", "axes in the file")
    for modality, facts in _by_modality(subjects, modalities).items():
        shapes, spacings = (np.array([getattr(f.grid, what) for f in facts]) for what in ("shape", "spacing"))
        axes = Counter(f.axes for f in facts)
        table.add_row(
            modality,
            str(len(facts)),
            " × ".join(_range(shapes[:, i], "{:.0f}") for i in range(3)),
            " × ".join(_range(spacings[:, i], "{:.3g}") for i in range(3)),
            ", ".join(name if len(axes) == 1 else f"{name} {count}" for name, count in axes.most_common()),
        )
    console.print(table)
    usable = [c for c in subjects if len(c.scans) > 1 and not c.fatal]
    one = sum(_on_one_grid(c) for c in usable)
    if one:
        console.print(f"{counted(one, 'subject')} with all scans on one grid.")
    if len(usable) > one:
        console.print(
            f"{counted(len(usable) - one, 'subject')} with scans on different grids of one world space: "
            "resampled to the reference modality when prepared."
        )


def intensity(console: Console, subjects: Sequence[Checked], modalities: Sequence[str]) -> None:
    """Smallest and largest value over all subjects; quantiles of the non-zero voxels of the typical subject."""
    columns = ("modality", "unit", "min", "1 %", "median", "99 %", "max")
    table = _table("Intensity (quantiles of non-zero voxels)", *columns)
    for modality, facts in _by_modality(subjects, modalities).items():
        rows = np.array([f.quantiles for f in facts if f.quantiles is not None])
        if rows.size:
            values = (rows[:, 0].min(), *np.median(rows[:, 1:4], axis=0), rows[:, 4].max())
            table.add_row(
                modality,
                _UNIT.get(KIND[modality], "a.u."),
                *(f"{v:.3g}" if abs(v) < 100 else f"{v:.0f}" for v in values),
            )
    if table.row_count:
        console.print(table)


def label_volumes(console: Console, subjects: Sequence[Checked], labels: Mapping[str, int]) -> None:
    """In how many subjects each label occurs, and how large it is there."""
    read = [c for c in subjects if c.subject.seg is not None and c.values]
    if not read:
        return
    title = f"Labels of {counted(len(read), 'subject')}"
    table = _table(title, "value", "label", "subjects", "median in ml", "largest")
    for name, value in sorted(labels.items(), key=lambda item: item[1]):
        volumes = [c.volumes[value] for c in read if value in c.volumes]
        if value:
            sizes = (f"{np.median(volumes):.3g}", f"{max(volumes):.3g}") if volumes else ("", "")
            table.add_row(str(value), escape(name), str(len(volumes)), *sizes)
    console.print(table)
    empty = sum(not c.volumes for c in read)
    if empty:
        console.print(f"{empty} of {len(read)} labels are empty.")


def problems(console: Console, subjects: Sequence[Checked], doubts: Sequence[str], notes: Sequence[str]) -> None:
    """What must be mended, by subject; what may be; what the reader noted."""
    bad = [c for c in subjects if c.fatal]
    if bad:
        title = f"Unusable: {len(bad)} of {counted(len(subjects), 'subject')}"
        table = _table(title, "subject", "what is wrong, and what to do")
        for checked in bad:
            table.add_row(escape(checked.subject.subject), escape("\n".join(checked.fatal)), style="red")
        console.print(table)
    odd = [f"{c.subject.subject}: {doubt}" for c in subjects for doubt in c.doubts] + list(doubts)
    if not bad and not odd:
        console.print("No problem found.", style="green")
    _list(console, "Odd, but usable", odd)
    _list(console, "Notes", notes)


def sides(console: Console, cohort: Cohort) -> None:
    """Subjects, persons, scans and labels by side."""
    table = _table("Splits", "side", "subjects", "persons", *cohort.modalities, "label")
    for side in SPLITS:
        chosen = cohort.subjects(side)
        scans = [sum(m in s.images for s in chosen) for m in cohort.modalities]
        counts = [len(chosen), len({s.person for s in chosen}), *scans, sum(s.seg is not None for s in chosen)]
        table.add_row(side, *map(str, counts))
    console.print(table)


def counted(number: int, noun: str) -> str:
    """`1 subject`, `2 subjects`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _mark(there: bool, seen: bool) -> str:
    return "·" if not there else "●" if seen else "[red]✗[/red]"


def _by_modality(subjects: Sequence[Checked], modalities: Sequence[str]) -> dict[str, list[Facts]]:
    facts = {m: [c.scans[m] for c in subjects if m in c.scans] for m in modalities}
    return {m: found for m, found in facts.items() if found}


def _range(values: NDArray[Any], form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low}–{high}"


def _on_one_grid(checked: Checked) -> bool:
    first, *others = (facts.grid for facts in checked.scans.values())
    return all(relation(first, grid) == "same_grid" for grid in others)


def _list(console: Console, title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.print(f"{title}:", style="bold")
    for line in lines[:_ROWS]:
        console.print(Padding(escape(line), (0, 0, 0, 2)))
    if len(lines) > _ROWS:
        console.print(f"  … {len(lines) - _ROWS} more")
