"""`medprism inspect`: read a folder in any known layout, show what is there, and write the cohort file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medprism.data import splits as dividing
from medprism.data.cohort import Cohort
from medprism.data.holes import make_holes
from medprism.data.layouts.found import Found, some
from medprism.data.splits import Sides
from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.data.checks import Checked


def inspect(
    root: Path,
    *,
    layout: str = "auto",
    out: Path | None = None,
    name: str | None = None,
    splits: str | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    modalities: list[str] | None = None,
    missing_rate: float = 0.0,
    quick: bool = False,
    skip_bad: bool = False,
    force: bool = False,
) -> Cohort:
    """Show the subjects × modalities of a folder, check every file, and write the cohort file.

    Args:
        root: Folder of scans, or a cohort file to check again, divide otherwise or write elsewhere.
        layout: How the folder is laid out: auto, brats, nnunet, msd, bids, autopet, nnssl, ibsi or flat.
        out: Cohort file to write; nothing is written without it.
        name: Name of the cohort; that of the data set or folder if not given.
        splits: random, kfold, sts (the shipped split of the sarcoma patients), or a splits_final.json of nnU-Net. If
            not given, the sides of the layout or cohort file are kept; a layout without sides is all training.
        fractions: Shares of persons in training, validation, test for random splits.
        folds: Number of folds for kfold.
        fold: Which fold of kfold, sts or splits_final.json.
        seed: Of the splits and of the missing rate.
        modalities: Keep only these, in this order; all that occur if not given.
        missing_rate: Probability from 0 to below 1 that a scan of a training subject is left out of the cohort, never
            its last: makes an incomplete cohort of a complete one.
        quick: Read headers only: no intensities, no label values, no damaged files found.
        skip_bad: Leave unusable subjects out instead of stopping at them.
        force: Overwrite an existing cohort file.

    Returns:
        The cohort, written or not.

    Raises:
        UserError: If nothing is found, a subject is unusable and `skip_bad` is not set, or the split is impossible.
    """
    # Here, so that `medprism --help` need not wait for nibabel and scipy.
    from rich.console import Console

    from medprism.data import gather, tables

    if out is not None and Path(out).exists() and not force:
        raise UserError(f"{out} exists already; choose another name or overwrite it with --force")
    found, base, origin = gather.source(Path(root), layout)
    order = gather.restrict(found, modalities)
    console = Console(highlight=False)
    kind = "cohort file" if gather.is_cohort_file(Path(root)) else f"layout {origin['layout']}"
    tables.headline(console, name or found.name, found.subjects(), f"{kind}, {base}")
    checked = gather.check_all(found, base, quick=quick)
    usable = [c for c in checked if not c.fatal]
    labels = gather.name_labels(found, usable)
    tables.availability(console, checked, order)
    tables.geometry(console, checked, order)
    tables.intensity(console, checked, order)
    tables.label_volumes(console, checked, labels)
    tables.problems(console, checked, gather.duplicate_scans(checked), found.notes)
    _stop_at_bad(checked, skip_bad=skip_bad)

    _keep(found, {c.subject.subject for c in usable})
    divided = _divide(found, splits, fractions, folds, fold, seed)
    if divided.left_out:
        count = tables.counted(len(divided.left_out), "subject")
        names = some([s.subject for s in divided.left_out])
        console.print(f"{count} left out, as the split does not name them: {names}", markup=False)
    training = make_holes(divided.training, missing_rate, seed)
    if missing_rate:
        before, after = (sum(len(s.images) for s in side) for side in (divided.training, training))
        console.print(f"Missing rate {missing_rate:g}: {before - after} of {before} training scans left out.")
    cohort = Cohort(
        name=name or found.name,
        modalities=order,
        labels=labels,
        regions=found.regions,
        root=base,
        training=training,
        validation=divided.validation,
        test=divided.test,
        label_map=found.label_map,
        classes=found.classes,
        origin=origin | _division(splits, fractions, folds, fold, seed, missing_rate),
    )
    tables.sides(console, cohort)
    if out is None:
        console.print("Nothing is written; name a file with --out cohort.json")
    else:
        console.print(f"Written: {cohort.save(Path(out), force=force)}", markup=False, soft_wrap=True)
    return cohort


def _keep(found: Found, usable: set[str]) -> None:
    found.sides = {side: [s for s in subjects if s.subject in usable] for side, subjects in found.sides.items()}


def _stop_at_bad(checked: "Sequence[Checked]", *, skip_bad: bool) -> None:
    bad = [c.subject.subject for c in checked if c.fatal]
    if len(bad) == len(checked):
        raise UserError(f"none of {len(checked)} subjects can be used; mend what is listed above")
    if bad and not skip_bad:
        raise UserError(
            f"{len(bad)} of {len(checked)} subjects cannot be used ({some(bad)}); mend what is listed above, "
            "or leave them out with --skip-bad"
        )


def _divide(
    found: Found, splits: str | None, fractions: tuple[float, float, float], folds: int, fold: int, seed: int
) -> Sides:
    """Put the subjects on sides. A file of nnU-Net divides all but the layout's own test side, which stays."""
    subjects = found.subjects()
    own = {side: tuple(held) for side, held in found.sides.items()}
    if splits is None:
        return Sides(own["training"], own["validation"], own["test"])
    if splits == "random":
        return dividing.random(subjects, fractions, seed)
    if splits == "kfold":
        return dividing.kfold(subjects, folds, fold, seed)
    if splits in dividing.SHIPPED:
        return dividing.shipped(splits, subjects, fold)
    if not splits.endswith(".json"):
        raise UserError(
            f"expected splits random, kfold, {', '.join(dividing.SHIPPED)} or a splits_final.json, got {splits!r}"
        )
    divided = dividing.from_nnunet(Path(splits), own["training"] + own["validation"], fold)
    return Sides(divided.training, divided.validation, own["test"], divided.left_out)


def _division(
    splits: str | None, fractions: tuple[float, float, float], folds: int, fold: int, seed: int, missing_rate: float
) -> dict[str, Any]:
    """What to remember of how the cohort was divided and thinned: only what had a say in it."""
    said: dict[str, Any] = {}
    if splits is not None:
        said["splits"] = Path(splits).name
    if splits == "random":
        said["fractions"] = list(fractions)
    if splits == "kfold":
        said["folds"] = folds
    if splits not in (None, "random"):
        said["fold"] = fold
    if missing_rate:
        said["missing_rate"] = missing_rate
    if splits in ("random", "kfold") or missing_rate:
        said["seed"] = seed
    return said
