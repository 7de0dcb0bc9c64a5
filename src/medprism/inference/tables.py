"""What `synthesize` prints: what was given, what is absent, what is made, and how good that was when measured."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from medprism.data.cohort import Cohort
from medprism.inference.jobs import Job
from medprism.inference.model import Model

_UNITS = {"psnr": " dB", "ssim": ""}


def one_subject(model: Model, job: Job) -> None:
    """Each modality of the model: given, to be made with the quality to expect, or absent."""
    table = Table("modality", "", "expected, as evaluated", title=_title(model), title_justify="left")
    for name in model.modalities:
        made = name in job.outputs
        role = f"given: {escape(job.images[name].name)}" if name in job.images else ""
        role = (
            f"{role}; generated again" if role and made else role or ("generated" if made else "absent, not asked for")
        )
        table.add_row(name, role, expected(model.card, job.images, name) if made else "")
    Console(highlight=False).print(table)


def whole_cohort(model: Model, cohort: Cohort, jobs: Sequence[Job]) -> None:
    """Each subset of given scans: how many subjects have it and what is made for them."""
    table = Table("subjects", "given", "generated, expected, as evaluated", title=_title(model), title_justify="left")
    kinds = Counter((tuple(job.images), tuple(job.outputs)) for job in jobs)
    for (given, made), count in kinds.most_common():
        table.add_row(str(count), " ".join(given), "\n".join(f"{n}  {expected(model.card, given, n)}" for n in made))
    strange = sum(not set(subject.images) & set(model.modalities) for subject in cohort.subjects())
    if strange:
        table.add_row(str(strange), "none that the model knows", "nothing")
    if complete := len(cohort.subjects()) - len(jobs) - strange:
        table.add_row(str(complete), "all that is asked for", "nothing")
    Console(highlight=False).print(table)


def expected(card: Mapping[str, Any], given: Sequence[str] | Mapping[str, Any], target: str) -> str:
    """The measured quality of a target from just these scans, as the card's metrics have it.

    Args:
        card: model.json; its `metrics` are rows as in metrics.json, if it has any.
        given: canonical names.
        target: canonical name.
    """
    metrics = card.get("metrics") or []
    rows = metrics.get("rows", []) if isinstance(metrics, Mapping) else metrics
    told = []
    for metric, unit in _UNITS.items():
        for row in rows:
            fits = row.get("method") == "model" and row.get("protocol", "strict") == "strict"
            what = (row.get("metric"), row.get("target"), row.get("region"), set(row.get("given") or ()))
            if fits and what == (metric, target, "foreground", set(given)) and row.get("mean") is not None:
                low, high = row.get("ci95") or (None, None)
                interval = "" if low is None else f" ({low:.3g} to {high:.3g})"
                told.append(f"{metric.upper()} {row['mean']:.3g}{unit}{interval}")
                break
    return ", ".join(told) or "not measured"


def finished(outputs: Sequence[Path], before: int) -> None:
    """Where the scans are."""
    note = f"; subjects done before: {before}" if before else ""
    folders = sorted({path.parent for path in outputs})
    where = escape(str(folders[0])) if len(folders) == 1 else f"{len(folders)} folders"
    Console(highlight=False).print(f"Synthetic scans: {len(outputs)}, in {where}{note}", soft_wrap=True)


class Bar:
    """A progress bar over subjects, whose part within one subject is told by `within`."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._done = progress, 0
        self._task = progress.add_task("synthesizing", total=total)

    def within(self, part: float) -> None:
        """Part of the present subject that is done, 0 to 1."""
        self._progress.update(self._task, completed=self._done + part)

    def next(self) -> None:
        """The present subject is done."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)


@contextmanager
def bar(total: int) -> Iterator[Bar]:
    """A bar on the standard error, so that what is printed can be piped; none where nobody watches."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        yield Bar(progress, total)


def _title(model: Model) -> str:
    cohort = model.card.get("cohort")
    return f"Model trained on {escape(str(cohort))}" if cohort else "Model"
