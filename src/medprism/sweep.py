"""The verb `sweep`: one configuration in several variants and seeds, trained, evaluated and compared.

Ablation tables are such sweeps. What is done is kept, so a sweep that was killed goes on when it is called again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from medprism.errors import UserError


def sweep(
    *,
    data: Path,
    out: Path,
    variants: dict[str, dict[str, Any]],
    base: str = "quickstart",
    seeds: list[int] = [0],  # noqa: B006 - never changed; jsonargparse shows it in the help
    epochs: int | None = None,
    precision: Literal["32", "bf16"] = "32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    representation: bool = False,
) -> Path:
    """Train, evaluate and compare variants of a configuration, each with each seed.

    Args:
        data: cache written by `medprism prepare`.
        out: folder; each training is in `<variant>/seed-<s>/run`, its evaluation beside it.
        variants: name of a variant: options of `medprism pretrain` that it changes, dotted, as in
            `no-prior: {network.prior: none}`.
        base: shipped configuration of `medprism pretrain`, or a YAML file, that all variants start from.
        seeds: each variant is trained once with each.
        epochs: of each training; that of the base if not given.
        precision: of training and evaluation.
        device: of training and evaluation.
        representation: also measure and compare what each encoder represents, in `<variant>/seed-<s>/representation`:
            the modality gap and more with each part of the method on and off.

    Returns:
        The report that compares them.

    Raises:
        UserError: a variant names an option that there is not, or a run in the folder has another configuration.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cache import Cache
    from medprism.evaluation.evaluate import evaluate
    from medprism.evaluation.representation.run import require_persons
    from medprism.evaluation.representation.tables import comparison
    from medprism.evaluation.results import Results
    from medprism.options import parse, parser_of
    from medprism.report.page import report
    from medprism.training.pretrain import pretrain

    if not variants or not seeds:
        raise UserError("expected variants and seeds to sweep over, got none; see the shipped --config table4")
    if representation:  # before hours of training
        cache = Cache.open(data)
        require_persons(cache.subjects("test"), split="test", cohort=cache.name)
    parser = parser_of("pretrain", pretrain, "")
    queue: dict[Path, dict[str, Any]] = {}
    for name, changes in variants.items():
        for seed in seeds:
            place = Path(out) / name / f"seed-{seed}"
            words = [f"--config={base}", f"--data={data}", f"--out={place / 'run'}", f"--seed={seed}", "--resume=auto"]
            words += [f"--compute.precision={precision}", f"--compute.device={device}"]
            words += [] if epochs is None else [f"--epochs={epochs}"]
            words += [f"--{option}={json.dumps(value)}".replace('"', "") for option, value in changes.items()]
            queue[place] = parse(parser, "pretrain", words)  # all of them before the first is trained

    console = Console()
    for number, (place, arguments) in enumerate(queue.items(), 1):
        console.rule(f"{number} of {len(queue)}: {place.relative_to(out)}")
        run = pretrain(**arguments)
        if not (place / "evaluation" / "metrics.json").exists():
            evaluate(run, data=Path(data), out=place / "evaluation", precision=precision, device=device)
        measured = place / "representation"
        if representation and not (measured / "metrics.json").exists():
            evaluate(run, data=Path(data), out=measured, precision=precision, device=device, representation=True)
    places = [place / "evaluation" for place in queue]
    console.print(table({place.parent.name: [] for place in queue}, queue))
    if representation:
        found: dict[str, list[Results]] = {}
        for place in queue:
            found.setdefault(place.parent.name, []).append(Results.read(place / "representation"))
        console.print(comparison(found))
        places += [place / "representation" for place in queue]
    return report(places, out=Path(out) / "report.html", force=True)


def table(names: Mapping[str, list[Path]], queue: Mapping[Path, Any]) -> Table:
    """Mean over pairs, strict, of each variant: mean over seeds, and their spread if there are several.

    Args:
        names: the variants in order.
        queue: the folders of all trainings.
    """
    shown = Table("variant", "seeds", "PSNR dB", "SSIM", "NMSE", "PSNR − lookup", title="mean over pairs, strict")
    for name in names:
        rows = [means(place / "evaluation") for place in queue if place.parent.name == name]
        cells = []
        for metric in ("psnr", "ssim", "nmse", "difference"):
            values = [row[metric] for row in rows]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{spread}")
        shown.add_row(name, str(len(rows)), *cells)
    return shown


def means(evaluation: Path) -> dict[str, float]:
    """PSNR, SSIM, NMSE in the foreground, and the PSNR's difference to `lookup`: means over source ≠ target."""
    rows = json.loads((evaluation / "metrics.json").read_text())["rows"]
    chosen = [
        row
        for row in rows
        if row["group"] == "off-diagonal" and row["region"] == "foreground" and row["protocol"] == "strict"
    ]
    found = {row["metric"]: row["mean"] for row in chosen if row["method"] == "model"}
    [difference] = [row["mean"] for row in chosen if row["method"] == "model-lookup" and row["metric"] == "psnr"]
    return {**{metric: found[metric] for metric in ("psnr", "ssim", "nmse")}, "difference": difference}
