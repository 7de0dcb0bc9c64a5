"""The verb `report`: one HTML file that shows runs to people. It needs no network and no other file to be opened."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from medprism.io.atomic import refuse_existing, whole_file


def report(runs: list[Path], *, out: Path, force: bool = False) -> Path:
    """Write one HTML page about one or several runs: cohort, curves, tables, pictures, representation.

    Args:
        runs: folders of `evaluate`, or of training runs that hold one as `evaluation`. A training run beside the
            evaluation of its model adds the curves.
        out: the HTML file.
        force: replace a file that is there.

    Returns:
        The file.

    Raises:
        UserError: a folder is no run, or the file exists.
    """
    # Here, so that the help need not wait for the figures.
    from medprism.report.render import render
    from medprism.report.runs import read_runs

    out = Path(out)
    refuse_existing(out, force=force)
    text = render(read_runs([Path(run) for run in runs]))
    with whole_file(out) as file:
        file.write(text.encode())
    Console(highlight=False).print(f"Report: {out}", soft_wrap=True)
    return out
