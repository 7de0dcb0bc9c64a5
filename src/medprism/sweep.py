"""The verb `sweep`: one configuration in several variants and seeds, trained, evaluated and compared.

Ablation tables and curves of label efficiency are such sweeps. A variant is a pre-training, a fine-tuning, or one after
the other; or a teacher and its student. What is done is kept: a sweep that was killed goes on when called again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from medprism.errors import UserError
from medprism.sweep_jobs import PRETRAIN, Job, queue, require_labels, verbs

EVALUATION, REPRESENTATION = "evaluation", "representation"


def sweep(
    *,
    data: Path,
    out: Path,
    variants: dict[str, dict[str, Any]],
    base: str | dict[str, str] = "quickstart",
    seeds: list[int] = [0],  # noqa: B006 - never changed; jsonargparse shows it in the help
    epochs: int | None = None,
    precision: Literal["32", "bf16"] = "32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    representation: bool = False,
    workers: int = 1,
) -> Path:
    """Train, evaluate and compare variants of a configuration, each with each seed.

    A variant that is pre-trained and then fine-tuned starts from its own pre-training, a student has its own teacher; a
    pre-training or teacher with the same options as another variant's is trained once.

    Args:
        data: cache written by `medprism prepare`.
        out: folder; each variant is in `<variant>/seed-<s>`: its training in `run`, the pre-training before it in
            `pretrain`, its evaluation beside them.
        variants: name of a variant: command: options that it changes, dotted, as in
            `no-prior: {pretrain: {network.prior: none}, finetune segment: {}}`; only the options where `base` is one
            name. The commands are `pretrain`, `teacher` (which is `finetune segment` too), and `finetune segment` or
            `finetune classify`; `templates: pretrain` gives the last the templates of the first.
        base: command: shipped configuration of it, or a YAML file, that all variants start from but those with a
            `config` of their own; one name is of `medprism pretrain`.
        seeds: each variant is trained once with each.
        epochs: of each training; that of the base if not given.
        precision: of training and evaluation.
        device: of training and evaluation.
        representation: also measure and compare what each encoder represents, in `<variant>/seed-<s>/representation`:
            the modality gap and more with each part of the method on and off.
        workers: trainings at once, each a process with its share of the cores, which tells what it does in
            `<variant>/seed-<s>/log.txt`.

    Returns:
        The report that compares them.

    Raises:
        UserError: a variant names a command or an option that there is not, or a run in the folder has another
            configuration.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cache import Cache
    from medprism.evaluation.folder import WIDTH
    from medprism.evaluation.representation.run import require_persons
    from medprism.evaluation.variants import print_represented, print_variants
    from medprism.report.page import report

    if not variants or not seeds:
        raise UserError("expected variants and seeds to sweep over, got none; see the shipped --config table4")
    if workers < 1:
        raise UserError(f"expected 1 worker or more, got {workers}")
    if isinstance(base, str):
        base, variants = {PRETRAIN: base}, {name: {PRETRAIN: changes} for name, changes in variants.items()}
    common = [f"--compute.precision={precision}", f"--compute.device={device}", "--resume=auto"]
    common += [] if epochs is None else [f"--epochs={epochs}"]
    jobs = list(queue(Path(data), Path(out), base, variants, seeds, common))  # all are parsed before one is trained
    cache = Cache.open(data)  # what would fail after hours of training fails now
    if representation:
        require_persons(cache.subjects("test"), split="test", cohort=cache.name)
    require_labels(jobs, cache)

    console, parts = Console(), [EVALUATION, *([REPRESENTATION] if representation else [])]
    measure = {"data": Path(data), "precision": precision, "device": device}
    for number, job in enumerate(_performed(jobs, parts, measure, workers, console), 1):
        if workers > 1:
            console.print(f"{number} of {len(jobs)} done: {job.verb}, {job.arguments['out'].relative_to(out)}")
    done = {part: {name: [Path(out) / name / f"seed-{s}" / part for s in seeds] for name in variants} for part in parts}
    wide = Console(width=max(console.width, WIDTH))  # in a narrow terminal lines wrap, and lose no digits
    for part, folders in done.items():
        (print_represented if part == REPRESENTATION else print_variants)(folders, wide)
    shown = [folder for folders in done.values() for own in folders.values() for folder in own]
    return report(shown, out=Path(out) / "report.html", force=True)


def _performed(
    jobs: Sequence[Job], parts: Sequence[str], measure: dict[str, Any], workers: int, console: Console
) -> Iterator[Job]:
    """The jobs, each when it is done: one after the other here, or several at once in processes of their own.

    Args:
        jobs: in order.
        parts: what is measured behind a variant's last training.
        measure: arguments of all evaluations.
        workers: jobs at once.
        console: where it is told what begins.
    """
    if workers == 1:
        for number, job in enumerate(jobs, 1):
            console.rule(f"{number} of {len(jobs)}: {job.verb}, {'/'.join(job.arguments['out'].parts[-3:])}")
            _perform(job, parts, measure)
            yield job
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for stage in sorted({job.stage for job in jobs}):  # those of one stage do not wait for each other
            own = {pool.submit(_alone, job, parts, measure, threads): job for job in jobs if job.stage == stage}
            try:
                for future in as_completed(own):
                    future.result()
                    yield own[future]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what runs may finish, nothing else begins
                raise


def _alone(job: Job, parts: Sequence[str], measure: dict[str, Any], threads: int) -> None:
    """`_perform` in a process of its own, what it prints kept in a file."""
    import torch

    torch.set_num_threads(threads)
    place: Path = job.arguments["out"].parent
    place.mkdir(parents=True, exist_ok=True)
    with (place / "log.txt").open("a") as log, redirect_stdout(log), redirect_stderr(log):
        _perform(job, parts, measure)


def _perform(job: Job, parts: Sequence[str], measure: dict[str, Any]) -> None:
    """Train, and measure what is not measured yet."""
    from medprism.evaluation.evaluate import evaluate

    run = verbs()[job.verb](**job.arguments)
    for part in parts if job.place is not None else ():
        assert job.place is not None
        if not (job.place / part / "metrics.json").exists():
            evaluate(run, out=job.place / part, representation=part == REPRESENTATION, **measure)
