"""The verb `synthesize`: the scans that a patient does not have, from those that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from medprism.data.subject import Subject
    from medprism.inference.jobs import Job
    from medprism.inference.result import Result

# Models are `Any` here: to tell options, the parser imports all that is named for type checking, and models need torch.


def synthesize(
    model: Path,
    *,
    out: Path,
    image: dict[str, Path] | None = None,
    data: Path | None = None,
    target: str = "all",
    uncertainty: bool = False,
    intensity: Literal["like-train", "unit"] = "like-train",
    device: str = "auto",
    precision: Literal["32", "bf16"] = "32",
    scheduler: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Generate the scans that a patient, or each subject of a cohort, does not have.

    Args:
        model: model folder, the folder of the run that made it, or builtin:brain-phantom, which comes along.
        out: folder for the synthetic scans, each with a JSON sidecar; not one that holds real scans.
        image: one patient's scans by modality, as in `--image.t1n a.nii.gz --image.t2w b.nii.gz`.
        data: cohort.json instead: every subject of it; what a stopped run has done is kept.
        target: the modality to generate, or `all` that are absent.
        uncertainty: also write a map of the standard deviation over single sources and rotations; takes 5 to 10 times
            as long.
        intensity: `like-train`: as the typical scan in training (CT in HU, PET in SUV); `unit`: 0 to 1.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent GPUs and a little less exact.
        scheduler: address of a dask.distributed scheduler whose workers take the subjects of --data, such as
            `tcp://10.0.0.1:8786`; they must see the same files under the same paths.
        force: overwrite.

    Returns:
        The synthetic scans, those that were there before included.

    Raises:
        UserError: model, scans, names or folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cohort import Cohort
    from medprism.inference import jobs, tables
    from medprism.inference.inputs import choose_targets
    from medprism.inference.model import Model
    from medprism.inference.result import uncertainty_path
    from medprism.inference.run import Work, run
    from medprism.inference.workers import load_for

    jobs.require_one(image, data, scheduler)
    out = Path(out)
    loaded, workers = load_for(Model, model, device=device, precision=precision, scheduler=scheduler)
    facts = {"ModelSHA256": loaded.card.get("sha256"), "Intensity": intensity}
    work = Work(
        doing="synthesizing",
        outputs="Synthetic scans",
        make=partial(_make, uncertainty=uncertainty, intensity=intensity),
        facts=lambda job: facts,
        beside=lambda path: [uncertainty_path(path)] if uncertainty else [],
    )
    if image:
        job = jobs.job_of_files(
            image,
            lambda given: {n: out / f"{n}.nii.gz" for n in choose_targets(target, given, loaded.makes)},
            loaded.takes,
        )
        jobs.refuse_beside([job], job.images.values())
        tables.one_subject(loaded, job)
        return run(work, loaded, [job], keep=False, force=force)
    cohort = Cohort.load(Path(str(data)))
    wanted = loaded.makes if target == "all" else choose_targets(target, (), loaded.makes)

    def outputs(subject: Subject, given: Sequence[str]) -> dict[str, Path]:
        return {
            name: out / jobs.place(cohort, subject, name, given[0]) for name in wanted if name not in subject.images
        }

    todo = jobs.jobs_of_cohort(cohort, loaded.takes, outputs)
    tables.whole_cohort(loaded, cohort, todo)
    if todo and jobs.is_bids(cohort):
        jobs.describe_bids(cohort, out, "Synthetic scans")
    return run(work, loaded, todo, keep=True, force=force, workers=workers)


def _make(
    model: Any,  # noqa: ANN401
    job: Job,
    names: Sequence[str],
    progress: Callable[[float], None],
    *,
    uncertainty: bool,
    intensity: Literal["like-train", "unit"],
) -> Mapping[str, Result]:
    made: Mapping[str, Result] = model.synthesize(
        job.images, names, uncertainty=uncertainty, intensity=intensity, progress=progress
    )
    return made
