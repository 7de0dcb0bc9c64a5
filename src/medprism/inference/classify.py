"""The verb `classify`: the class of a patient, from whatever scans there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.data.subject import Subject
    from medprism.inference.jobs import Job

# Models are `Any` here: to tell options, the parser imports all that is named for type checking, and models need torch.


def classify(
    model: Path,
    *,
    out: Path,
    image: dict[str, Path] | None = None,
    data: Path | None = None,
    device: str = "auto",
    precision: Literal["32", "bf16"] = "32",
    scheduler: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Tell the class of a patient, or of each subject of a cohort, from the scans that there are.

    Args:
        model: folder of a model that was trained to classify, or of the run that made it.
        out: the result, .json; with --data a folder for all of them, one file a subject.
        image: one patient's scans by modality, as in `--image.t1n a.nii.gz --image.t2f b.nii.gz`; any of the model's.
        data: cohort.json instead: every subject of it; what a stopped run has done is kept.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent GPUs and a little less exact.
        scheduler: address of a dask.distributed scheduler whose workers take the subjects of --data, such as
            `tcp://10.0.0.1:8786`; they must see the same files under the same paths.
        force: overwrite.

    Returns:
        The results, those that were there before included.

    Raises:
        UserError: model, scans, names or folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cohort import Cohort
    from medprism.inference import jobs, tables_subsets
    from medprism.inference.classification import ClassificationModel, require_json
    from medprism.inference.run import Work, run
    from medprism.inference.workers import load_for

    jobs.require_one(image, data, scheduler)
    out = Path(out)
    loaded, workers = load_for(ClassificationModel, model, device=device, precision=precision, scheduler=scheduler)
    facts = {"ModelSHA256": loaded.card.get("sha256")}
    work = Work(doing="classifying", outputs="Classifications", make=_make, facts=lambda job: facts)
    if image:
        require_json(out)
        job = jobs.job_of_files(image, lambda given: {"class": out}, loaded.modalities)
        tell = partial(tables_subsets.one_subject, loaded, job)
        made = run(work, loaded, [job], keep=False, force=force, tell=tell)
        tables_subsets.classes(out)
        return made
    if out.suffix == ".json":
        raise UserError(f"expected a folder for the results of a cohort, got {out}; give one as --out")
    cohort = Cohort.load(Path(str(data)))

    def outputs(subject: Subject, given: Sequence[str]) -> dict[str, Path]:
        return {"class": out / f"{subject.subject}.json"}

    todo = jobs.jobs_of_cohort(cohort, loaded.modalities, outputs)
    tell = partial(tables_subsets.whole_cohort, loaded, cohort, todo)
    return run(work, loaded, todo, keep=True, force=force, workers=workers, tell=tell)


def _make(
    model: Any,  # noqa: ANN401
    job: Job,
    names: Sequence[str],
    progress: Callable[[float], None],
) -> Mapping[str, Any]:
    return {"class": model.classify(job.images, progress=progress)}
