"""The verb `quickstart`: from nothing, or from a cohort, to a report in minutes on two CPU cores."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

from rich.console import Console

from medprism.data.cohort import Cohort
from medprism.errors import UserError
from medprism.training.run import Resume

logger = logging.getLogger(__name__)

STEPS = 1680
SPACING = 3.0  # mm


def quickstart(
    *,
    out: Path,
    data: Path | None = None,
    subjects: int = 40,
    steps: int = STEPS,
    seed: int = 0,
    resume: Resume = "never",
    force: bool = False,
) -> Path:
    """See medprism work: phantoms, preparation, pre-training, evaluation on held-out persons, report.

    On two CPU cores it takes minutes. Without `--data` it makes brain phantoms, so its figures are phantom results.

    Args:
        out: folder for everything; `report.html` in it is what to look at.
        data: cohort.json of your own instead of phantoms, e.g. from `medprism inspect`; scans are resampled to 3 mm.
        subjects: number of phantoms to make.
        steps: of the optimiser.
        seed: of everything.
        resume: `auto` keeps what an interrupted quickstart has done.
        force: begin anew where a quickstart is already.

    Returns:
        The report.

    Raises:
        UserError: the folder is in use, or the cohort does not fit.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.prepare import prepare
    from medprism.evaluation.evaluate import evaluate
    from medprism.report.page import report
    from medprism.training.fit import fast_precision

    out = Path(out)
    if out.exists() and any(out.iterdir()) and resume == "never" and not force:
        raise UserError(f"expected an empty folder, got {out}; give --resume auto, --force or another --out")
    console = Console()
    cohort = _phantoms(out, subjects, seed, resume, force) if data is None else divided(Path(data), out, seed, force)

    console.rule("prepare")
    cache = prepare(cohort, out=out / "cache", spacing=(SPACING,) * 3, force=force)
    console.rule("pretrain")
    run = _pretrain(cache.path, out / "run", steps, seed, resume, force)
    console.rule("evaluate")
    evaluation = out / "evaluation"
    done = evaluation / "metrics.json"
    if resume == "never" or not _is_of(done, run):
        evaluate(run, data=cache.path, out=evaluation, record=True, force=True, seed=seed, precision=fast_precision())
    console.rule("report")
    page = report([evaluation], out=out / "report.html", force=True)
    console.print("[bold green]done:[/] open it in a browser")
    return page


def _phantoms(out: Path, subjects: int, seed: int, resume: Resume, force: bool) -> Path:
    from medprism.phantoms.cohort import write_brain_cohort

    Console().rule("phantoms")
    made = out / "phantoms" / "cohort.json"
    if resume == "auto" and made.exists():
        recipe = json.loads(made.with_name("phantom.json").read_text())["recipe"]
        if (recipe["subjects"], recipe["seed"], recipe["spacing"]) == (subjects, seed, SPACING):
            return made
    return write_brain_cohort(out / "phantoms", subjects=subjects, spacing=SPACING, seed=seed, force=force)


def divided(data: Path, out: Path, seed: int, force: bool) -> Path:
    """The cohort file itself if it has all three sides, otherwise a copy of it divided by person at random."""
    from medprism.data import splits

    cohort = Cohort.load(data)
    if cohort.training and cohort.validation and cohort.test:
        return data
    logger.info("%s has no three sides; its persons are divided at random, 70 / 10 / 20 %%", data)
    sides = splits.random(cohort.subjects(), (0.7, 0.1, 0.2), seed)
    whole = Cohort(
        name=cohort.name,
        modalities=cohort.modalities,
        labels=cohort.labels,
        regions=cohort.regions,
        root=cohort.root,
        training=sides.training,
        validation=sides.validation,
        test=sides.test,
        label_map=cohort.label_map,
        classes=cohort.classes,
        origin=cohort.origin,
    )
    return whole.moved(out.resolve()).save(out / "cohort.json", force=True)


def _pretrain(cache: Path, run: Path, steps: int, seed: int, resume: Resume, force: bool) -> Path:
    """The shipped configuration `quickstart`, for as many epochs as the steps make with this cohort."""
    from medprism.data.cache import Cache
    from medprism.options import parse, parser_of
    from medprism.training.fit import fast_precision
    from medprism.training.patches import Patches
    from medprism.training.pretrain import pretrain

    words = ["--config=quickstart", f"--data={cache}", f"--out={run}", f"--seed={seed}", f"--resume={resume}"]
    words += [f"--compute.precision={fast_precision()}", f"--force={str(force).lower()}"]
    values = parse(parser_of("pretrain", pretrain, ""), "pretrain", words)
    values["epochs"] = math.ceil(steps / Patches(Cache.open(cache), values["patches"], seed).steps)
    return pretrain(**values)


def _is_of(metrics: Path, run: Path) -> bool:
    """Whether an evaluation is of the model that the run has now."""
    if not metrics.exists():
        return False
    card = json.loads((run / "model" / "model.json").read_text())
    return bool(json.loads(metrics.read_text()).get("model_hash") == card["sha256"])
