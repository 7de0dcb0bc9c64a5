"""Who is learned from, chosen by and reported on: always by person, never by subject.

Chance enters through one rule that anyone can repeat with `sha256sum`: persons are put in the order of
SHA-256("<seed>/<person>"). It depends on no library, and a new person leaves the order of the others as it was.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from medprism.data.cohort import SPLITS
from medprism.data.cohort_file import read_json
from medprism.data.subject import Subject
from medprism.errors import UserError

SHIPPED = ("sts",)
"""Names of the fixed splits that come with the package, one file `splits_<name>.json` each."""


@dataclass(frozen=True)
class Sides:
    """Subjects by side; `left_out` are those that a fixed split does not name."""

    training: tuple[Subject, ...]
    validation: tuple[Subject, ...] = ()
    test: tuple[Subject, ...] = ()
    left_out: tuple[Subject, ...] = ()


def random(
    subjects: Sequence[Subject], fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0
) -> Sides:
    """Divide the persons by chance.

    Args:
        subjects: All subjects.
        fractions: Share of the persons in training, validation, test; together 1. A share above 0 gets a person.
        seed: Another seed, another division.

    Raises:
        UserError: If the fractions are no shares, or there are fewer persons than sides to fill.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise UserError(
            f"expected three fractions (training, validation, test) that sum to 1, got {tuple(fractions)}; "
            "for example 0.7 0.1 0.2"
        )
    persons = _shuffled(subjects, seed)
    sizes = _sizes(len(persons), fractions)
    ends = [sum(sizes[: i + 1]) for i in range(3)]
    sides = (persons[: ends[0]], persons[ends[0] : ends[1]], persons[ends[1] :])
    return _divided(subjects, dict(zip(SPLITS, sides, strict=True)))


def kfold(subjects: Sequence[Subject], folds: int = 5, fold: int = 0, seed: int = 0) -> Sides:
    """One fold of a cross-validation: its persons are the test; everyone is tested in exactly one fold.

    Of the others, a tenth of all persons (rounded, at least one) is for validation, taken from the folds that follow.

    Raises:
        UserError: If there is no such fold, or too few persons for so many folds.
    """
    persons = _shuffled(subjects, seed)
    if not 2 <= folds <= len(persons):
        raise UserError(f"expected 2 to {len(persons)} folds for {len(persons)} persons, got {folds}; set --folds")
    _check_fold(fold, folds)
    by_fold = [persons[i::folds] for i in range(folds)]
    others = [person for i in range(1, folds) for person in by_fold[(fold + i) % folds]]
    for_validation = max(1, round(len(persons) / 10))
    if len(others) <= for_validation:
        raise UserError(
            f"expected more than {len(persons)} persons for {folds} folds with a validation set; add subjects"
        )
    sides = {"training": others[for_validation:], "validation": others[:for_validation], "test": by_fold[fold]}
    return _divided(subjects, sides)


def from_nnunet(path: Path, subjects: Sequence[Subject], fold: int = 0) -> Sides:
    """A fold of nnU-Net's `splits_final.json`: `train` is the training side, `val` the validation side.

    Args:
        path: A list of `{"train": [case, …], "val": [case, …]}`.
        subjects: Those to divide; cases that the file does not name are left out.
        fold: Which item of the list.

    Raises:
        UserError: If the file has another form, names a case that is not in the cohort, or puts a person on two sides.
    """
    content = read_json(Path(path))
    form = isinstance(content, list) and all(isinstance(f, dict) and {"train", "val"} <= f.keys() for f in content)
    if not form or not content:
        raise UserError(
            f'{path}: expected a list of {{"train": [...], "val": [...]}} as nnU-Net writes it; check the file'
        )
    _check_fold(fold, len(content))
    sides = {"training": content[fold]["train"], "validation": content[fold]["val"]}
    known = {s.subject for s in subjects}
    missing = sorted({str(case) for cases in sides.values() for case in cases} - known)
    if missing:
        raise UserError(
            f"{path}: fold {fold} names {len(missing)} cases that the cohort lacks ({_some(missing)}); "
            "is it the split of this data set?"
        )
    divided = _divided(subjects, sides, by="subject")
    _check_persons(divided, Path(path))
    return divided


def shipped(name: str, subjects: Sequence[Subject], fold: int = 0) -> Sides:
    """A fixed split that comes with the package, so that everyone reports on the same persons.

    Args:
        name: `sts`: 26 patients of the soft-tissue-sarcoma set in 5 folds (test 5-6, validation 3, the rest training).
        subjects: All subjects; persons that the split does not name are left out.
        fold: 0 to 4.

    Raises:
        UserError: If there is no such split or fold, or the cohort lacks a person that the split names.
    """
    if name not in SHIPPED:
        raise UserError(f"expected a shipped split ({' '.join(SHIPPED)}), got {name!r}")
    with resources.as_file(resources.files("medprism.data") / f"splits_{name}.json") as path:
        folds: list[dict[str, list[str]]] = read_json(path)["folds"]
    _check_fold(fold, len(folds))
    sides = folds[fold]
    missing = sorted({p for side in sides.values() for p in side} - {s.person for s in subjects})
    if missing:
        raise UserError(
            f"the split {name!r} needs {sum(map(len, sides.values()))} persons, the cohort lacks {len(missing)} of "
            f"them ({_some(missing)}); add them, or divide what there is with --splits kfold"
        )
    return _divided(subjects, sides)


def _shuffled(subjects: Iterable[Subject], seed: int) -> list[str]:
    return sorted({s.person for s in subjects}, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest())


def _sizes(persons: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `persons`: largest remainders, and nobody who asked for a share gets none."""
    wanted = sum(f > 0 for f in fractions)
    if persons < wanted:
        raise UserError(f"expected at least {wanted} persons to fill {wanted} sides, got {persons}; set --fractions")
    exact = [persons * f for f in fractions]
    sizes = [int(x + 1e-9) for x in exact]
    remainders = sorted(range(3), key=lambda i: (sizes[i] - exact[i], i))
    for i in remainders[: persons - sum(sizes)]:
        sizes[i] += 1
    for i, fraction in enumerate(fractions):
        if fraction > 0 and sizes[i] == 0:
            sizes[max(range(3), key=sizes.__getitem__)] -= 1
            sizes[i] = 1
    return sizes


def _divided(subjects: Sequence[Subject], sides: Mapping[str, Iterable[str]], by: str = "person") -> Sides:
    """Subjects to the sides that name their person (or themselves, `by="subject"`); others are left out."""
    names = [set(sides.get(side, ())) for side in SPLITS]
    chosen = [tuple(s for s in subjects if getattr(s, by) in named) for named in names]
    left_out = tuple(s for s in subjects if not any(getattr(s, by) in named for named in names))
    return Sides(chosen[0], chosen[1], chosen[2], left_out)


def _check_persons(sides: Sides, source: Path) -> None:
    side_of: dict[str, str] = {}
    for side in SPLITS:
        chosen: tuple[Subject, ...] = getattr(sides, side)
        for subject in chosen:
            other = side_of.setdefault(subject.person, side)
            if other != side:
                raise UserError(
                    f"{source}: person {subject.person!r} is on two sides, {other} and {side}; "
                    "put all visits of a person into one"
                )


def _check_fold(fold: int, folds: int) -> None:
    if not 0 <= fold < folds:
        raise UserError(f"expected a fold from 0 to {folds - 1}, got {fold}; set --fold")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
