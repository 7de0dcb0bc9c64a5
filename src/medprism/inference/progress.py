"""What the verbs of inference show while and after they work."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """A progress bar over subjects, whose part within one subject is told by `within`."""

    def __init__(self, progress: Progress, doing: str, total: int) -> None:
        self._progress, self._done = progress, 0
        self._task = progress.add_task(doing, total=total)

    def within(self, part: float) -> None:
        """Part of the present subject that is done, 0 to 1."""
        self._progress.update(self._task, completed=self._done + part)

    def next(self) -> None:
        """The present subject is done."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)


@contextmanager
def bar(doing: str, total: int) -> Iterator[Bar]:
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
        yield Bar(progress, doing, total)


def finished(what: str, outputs: Sequence[Path], before: int) -> None:
    """How many files of what there are now, and where."""
    note = f"; subjects done before: {before}" if before else ""
    folders = sorted({path.parent for path in outputs})
    where = escape(str(folders[0])) if len(folders) == 1 else f"{len(folders)} folders"
    Console(highlight=False).print(f"{what}: {len(outputs)}, in {where}{note}", soft_wrap=True)


def title(card: Mapping[str, Any]) -> str:
    """Where a model comes from, above a table."""
    cohort = card.get("cohort")
    return f"Model trained on {escape(str(cohort))}" if cohort else "Model"
