"""`medprism prepare`: resample, normalise, crop and store a cohort so that crops of it are read in milliseconds."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from medprism.data.build import Built, Job, build
from medprism.data.cache import ENTRIES, Cache, head_of, read_index, write_index
from medprism.data.cohort import SPLITS, Cohort
from medprism.data.entry import UNFINISHED, Entry
from medprism.data.intensity import Normaliser
from medprism.data.recipe import Recipe
from medprism.data.spread import spread
from medprism.errors import UserError

log = logging.getLogger(__name__)


def prepare(
    cohort: Cohort | Path | str,
    *,
    out: Path | str,
    spacing: tuple[float, float, float] | None = None,
    reference: str | None = None,
    normalisers: dict[str, Normaliser] | None = None,
    margin: int = 4,
    workers: int = 0,
    scheduler: str | None = None,
    force: bool = False,
) -> Cache:
    """Prepare a cohort for training and evaluation.

    Interrupted at any instant, the same call goes on. Called again, it keeps what is sound and up to date, makes again
    what is damaged or whose files have changed, and removes what is not used any more.

    Args:
        cohort: The cohort file.
        out: Folder to write.
        spacing: Voxel sides (X, Y, Z) in mm; by default those of each subject's reference scan.
        reference: Modality whose grid the scans of a subject are resampled to; by default the first present one.
        normalisers: How to normalise the intensities of a modality, where not by default.
        margin: Voxels kept around the foreground.
        workers: Processes that prepare; 0 prepares in this one.
        scheduler: Address of a dask.distributed scheduler whose workers prepare instead.
        force: Replace what the folder holds if it is another cohort, or prepared in another way.

    Returns:
        The prepared cohort.

    Raises:
        UserError: A scan cannot be prepared (all others are kept), or the folder holds something else.
    """
    begun = time.perf_counter()
    cohort = cohort if isinstance(cohort, Cohort) else Cohort.load(Path(cohort))
    recipe = Recipe.of(cohort.modalities, spacing=spacing, reference=reference, normalisers=normalisers, margin=margin)
    out = Path(out).absolute()
    _claim(out, head_of(cohort, recipe), force=force)
    built = _build_all(cohort, recipe, out, workers=workers, scheduler=scheduler)
    cache = _finish(cohort, recipe, out, built)
    _remove_unused(out / ENTRIES, {item.folder for item in built.values()})
    Console().print(_table(cache, sum(item.fresh for item in built.values()), time.perf_counter() - begun))
    return cache


def _claim(out: Path, head: dict[str, Any], *, force: bool) -> None:
    """Make sure that the folder is ours: new, empty, or a cache of the same or (with force) of something else.

    Until the end it is marked as incomplete: who finds that a subject's files changed must not train on the old ones.
    """
    index = read_index(out)
    if index is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"expected a new or empty folder, got {out} with other things in it; choose another one")
    elif {key: index.get(key) for key in head} != head and not force:
        raise UserError(
            f"expected {out} to hold this cohort prepared like this, got another {_difference(index, head)}; "
            "choose another folder, or pass --force to replace it"
        )
    write_index(out, {**head, "complete": False})


def _difference(index: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """What differs first, in words."""
    if index.get("version") != head["version"]:
        return f"version ({index.get('version')}, this is {head['version']})"
    for part in ("cohort", "recipe"):
        for key, new in head[part].items():
            old = index[part].get(key)
            if old != new:
                return f"{part} ({key} {old}, now {new})" if len(f"{old}{new}") < 100 else f"{part} (its {key})"
    return "content"


def _build_all(cohort: Cohort, recipe: Recipe, out: Path, *, workers: int, scheduler: str | None) -> dict[str, Built]:
    """Prepare every subject that is not; by name.

    Raises:
        UserError: Some cannot be prepared; the others are.
    """
    entries = out / ENTRIES
    for leftover in entries.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)  # of a run that was killed
    jobs = [Job(replace(cohort, training=(s,), validation=(), test=()), recipe, entries) for s in cohort.subjects()]
    built: dict[str, Built] = {}
    wrong: list[UserError] = []
    console = Console(stderr=True)
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for result in progress.track(spread(build, jobs, workers=workers, scheduler=scheduler), total=len(jobs)):
            if isinstance(result, UserError):
                wrong.append(result)
            else:
                built[result.subject] = result
    if len(wrong) > 1:
        for error in wrong:
            log.error("%s", error)
        raise UserError(f"{wrong[0]} ({len(wrong)} of {len(jobs)} subjects failed, all are named above)")
    if wrong:
        raise wrong[0]
    return built


def _finish(cohort: Cohort, recipe: Recipe, out: Path, built: Mapping[str, Built]) -> Cache:
    """Write the index and open what it lists."""
    rows = {
        split: [
            {
                "subject": subject.subject,
                "person": subject.person,
                "site": subject.site,
                "class": subject.class_label,
                "folder": built[subject.subject].folder,
                "digest": built[subject.subject].digest,
            }
            for subject in cohort.subjects(split)
        ]
        for split in SPLITS
    }
    write_index(out, {**head_of(cohort, recipe), "complete": True, "splits": rows})
    return Cache.open(out)


def _remove_unused(entries: Path, used: set[str]) -> None:
    """Remove entries that no subject uses any more: made of older files, or in another way."""
    for folder in entries.iterdir():
        if folder.name not in used:
            shutil.rmtree(folder)


def _table(cache: Cache, fresh: int, seconds: float) -> Table:
    total = len(cache.subjects())
    table = Table(
        title=f"{cache.name}: {fresh} prepared, {total - fresh} kept, {seconds:.1f} s",
        caption=str(cache.path),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("split", "subjects", "scans", "labels", "median voxels", "MB"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split in SPLITS:
        table.add_row(split, *_row(cache.subjects(split)))
    table.add_section()
    table.add_row("all", *_row(cache.subjects()))
    return table


def _row(entries: Sequence[Entry]) -> list[str]:
    shapes = sorted((entry.shape for entry in entries), key=lambda shape: shape[0] * shape[1] * shape[2])
    return [
        str(len(entries)),
        str(sum(sum(entry.present) for entry in entries)),
        str(sum(entry.labelled for entry in entries)),
        "×".join(map(str, shapes[len(shapes) // 2])) if shapes else "-",
        f"{sum(entry.megabytes for entry in entries):.1f}",
    ]
