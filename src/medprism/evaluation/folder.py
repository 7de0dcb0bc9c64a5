"""What the evaluations of all tasks share: do model and cache fit, what was done, and a folder that appears whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import track

import medprism
from medprism.errors import UserError
from medprism.evaluation.leakage import refuse_seen
from medprism.evaluation.results import METRICS, PER_SUBJECT, machine
from medprism.evaluation.slices import SLICES
from medprism.evaluation.subjects import REPRESENTATION, SUBJECTS, write_subjects

if TYPE_CHECKING:
    from medprism.data.cache import Cache, Entry

Item = TypeVar("Item")

WIDTH = 150
CARD, LOG = "model.json", "log.csv"
FILLED = "absent scans are filled by templates"
FILES = (PER_SUBJECT, SUBJECTS, SLICES, REPRESENTATION, CARD, LOG)  # beside metrics.json, which is written last


def terminal() -> Console:
    """Where tables go; in a file or a pipe they are wide, so that no column is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, WIDTH))


def refuse_existing(out: Path, *, force: bool) -> None:
    """Stop before an evaluation that is there is lost, or one is strewn among the files of something else.

    Raises:
        UserError: there is one and `force` is False, or the place is a file or the folder of a cohort, cache or run.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"expected a folder to write to, got the file {out}; choose another place")
    if (out / METRICS).exists() and not force:
        raise UserError(
            f"expected no evaluation in {out}, but {METRICS} is there; choose another place or pass --force"
        )
    for name in ("cohort.json", "cache.json", "config.yaml"):
        if (out / name).exists():
            raise UserError(f"expected a folder for an evaluation, got {out} with {name} in it; choose another --out")


def require_fit(card: Mapping[str, Any], cache: Cache, entries: Sequence[Entry], *, split: str) -> None:
    """Stop unless the cache was prepared as the model needs it, and holds persons that it may be scored on.

    Args:
        card: of the model.
        cache: the prepared cohort.
        entries: the subjects to be scored.
        split: the split that they are.

    Raises:
        UserError: no subjects, other modalities, normalisers or spacing, or persons that the model was trained on.
    """
    if not entries:
        raise UserError(f"expected subjects in split {split} of {cache.name}, got none; choose another split")
    if list(card["modalities"]) != list(cache.modalities):
        raise UserError(
            f"expected a cache of {' '.join(card['modalities'])} as the model was trained on, got "
            f"{' '.join(cache.modalities)}; prepare the cohort with these modalities in this order"
        )
    recipes = {name: cache.recipe.normalisers[name].to_dict() for name in cache.modalities}
    trained = card["normalisers"]
    differing = [name for name in recipes if plain(trained[name]) != plain(recipes[name])]
    if differing:
        raise UserError(
            f"expected intensities normalised as in training, got another normaliser for {' '.join(differing)}; "
            "prepare the cohort with the model's recipe"
        )
    if card["spacing"] != plain(cache.recipe.spacing):
        raise UserError(
            f"expected voxels of {card['spacing']} mm as in training, got {plain(cache.recipe.spacing)}; "
            "prepare the cohort with the model's spacing"
        )
    refuse_seen(card, entries, split=split, split_hash=cache.split_hash)


def head(
    card: Mapping[str, Any],
    cache: Cache,
    entries: Sequence[Entry],
    *,
    task: str,
    protocol: str,
    split: str,
    seed: int,
    limit: int | None,
) -> dict[str, Any]:
    """What metrics.json says about any evaluation, besides its rows."""
    return {
        "task": task,
        "protocol": protocol,
        "split": split,
        "seed": seed,
        "version": medprism.__version__,
        "split_hash": cache.split_hash,
        "model_hash": card.get("sha256"),
        "machine": machine(),
        "cohort": cache.name,
        "phantom": cache.name.startswith("phantom"),
        "modalities": list(cache.modalities),
        "subjects": len(entries),
        "persons": len({entry.person for entry in entries}),
        "limit": limit,
        "fill": FILLED if card.get("fill") else None,
        "recipe": {name: plain(cache.recipe.normalisers[name].to_dict()) for name in cache.modalities},
    }


@contextmanager
def evaluation_folder(out: Path, card: Mapping[str, Any], model: Path | None, cache: Cache) -> Iterator[Path]:
    """A temporary folder whose files replace those of an older evaluation in `out` when the block ends well.

    The list of subjects, the model's card and its training log are put in. metrics.json goes first and comes last, as
    the sign of a whole evaluation; other files in `out` stay.

    Args:
        out: where the evaluation will be.
        card: of the model.
        model: its folder.
        cache: the prepared cohort.

    Yields:
        The folder to write to, with an empty folder `slices` for what need not stay.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary)
        (folder / "slices").mkdir()
        yield folder
        write_subjects(cache, folder)
        (folder / CARD).write_text(json.dumps(dict(card), indent=1) + "\n", encoding="utf-8")
        if model is not None and model.name == "model" and (model.parent / "metrics.csv").is_file():
            shutil.copyfile(model.parent / "metrics.csv", folder / LOG)
        out.mkdir(exist_ok=True)
        for name in (METRICS, *FILES):
            (out / name).unlink(missing_ok=True)
        for name in (*FILES, METRICS):
            if (folder / name).exists():
                os.replace(folder / name, out / name)


def tracked(items: Iterable[Item], what: str, console: Console, total: int | None = None) -> Iterable[Item]:
    """Subjects or what is made of them, with a bar where somebody watches; `total` of what has no length."""
    return track(items, what, total=total, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def named(subject: str) -> Iterator[None]:
    """Errors of what is done with a subject begin with its name.

    Raises:
        UserError: what the block raised.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject}: {error}") from error


def plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """A value as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))
