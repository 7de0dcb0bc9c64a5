"""Seconds a subject to prepare a cohort: with one and more processes, beside the time that decompression alone takes.

    python -m benchmarks preparation --out preparation.json
    python -m benchmarks preparation --cohort cohort.json --workers 1 2 4

Without a cohort, phantom brains at 1 mm are made (four scans and a label each). The floor is `gzip.decompress` of the
same files, which nothing that reads them can avoid. Ways alternate within a round; caches are made anew each time.
Efficiency is the gain in time over one process, divided by the number of processes; it needs idle cores.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.common import alternate, parser, publish
from medprism.data.cohort import Cohort
from medprism.data.prepare import prepare
from medprism.phantoms.cohort import write_brain_cohort


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = options.cohort or write_brain_cohort(
            work / "scans", subjects=options.subjects, spacing=1.0, seed=options.seed
        )
        cohort = Cohort.load(path)
        subjects = len(list(cohort.subjects()))
        ways = {"gunzip alone": lambda: gunzip(cohort)}
        ways |= {f"{count} process(es)": prepared(cohort, work / "cache", count) for count in options.workers}
        for way in ways.values():
            way()
        seconds = alternate(ways, options.rounds)
    one = median(seconds[f"{options.workers[0]} process(es)"]["clock"]) * options.workers[0]
    rows = []
    for name, times in seconds.items():
        clock, count = median(times["clock"]), name.split()[0]
        efficiency = one / clock / int(count) if count.isdigit() else None
        rows.append({"way": name, "seconds_per_subject": clock / subjects, "efficiency": efficiency})
    columns = {"way": "", "seconds_per_subject": ".2f", "efficiency": ".2f"}
    title = f"prepare, {subjects} subjects, {'the given cohort' if options.cohort else 'phantom brains at 1 mm'}"
    publish("preparation", options, rows, title, columns, subjects=subjects)


def arguments() -> argparse.Namespace:
    made = parser(__doc__, rounds=3)
    made.add_argument("--cohort", type=Path, help="cohort.json; without it phantom brains are made")
    made.add_argument("--subjects", type=int, default=8, help="number of phantoms")
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    return made.parse_args()


def gunzip(cohort: Cohort) -> None:
    """Decompress all files of a cohort, and throw the result away."""
    for subject in cohort.subjects():
        for path in {*subject.images.values(), *([subject.seg] if subject.seg else [])}:
            gzip.decompress((cohort.root / path).read_bytes())


def prepared(cohort: Cohort, out: Path, workers: int) -> Callable[[], None]:
    """Preparing into a new cache."""

    def way() -> None:
        shutil.rmtree(out, ignore_errors=True)
        prepare(cohort, out=out, workers=workers)

    return way


if __name__ == "__main__":
    main()
