"""The verb `segment`: the label map of a patient, from whatever scans there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medprism.errors import UserError

if TYPE_CHECKING:
    from medprism.data.subject import Subject
    from medprism.inference.jobs import Job
    from medprism.inference.segmented import Segmentation

# Models are `Any` here: to tell options, the parser imports all that is named for type checking, and models need torch.


def segment(
    model: Path,
    *,
    out: Path,
    image: dict[str, Path] | None = None,
    data: Path | None = None,
    small: dict[str, float] | None = None,
    probabilities: bool = False,
    reference: str | None = None,
    device: str = "auto",
    precision: Literal["32", "bf16"] = "32",
    scheduler: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Outline what a model was taught to see, in a patient or each subject of a cohort, from the scans that there are.

    Args:
        model: folder of a model fine-tuned with `medprism finetune segment`, or of the run that made it.
        out: the label map, .nii or .nii.gz, with a JSON sidecar beside it; with --data a folder for all of them.
        image: one patient's scans by modality, as in `--image.ct a.nii.gz --image.pet b.nii.gz`; any of the model's.
        data: cohort.json instead: every subject of it; what a stopped run has done is kept.
        small: a region of less volume in mm³ is taken for a mistake, as in `--small.ET 500` (the rule of BraTS: then
            ET becomes necrosis); the raw map is written beside as `…_raw.nii.gz`.
        probabilities: also write how likely each label is, one file a label.
        reference: the modality on whose grid the map is, in a cohort where the subject has it; by default the one that
            training preferred.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent GPUs and a little less exact.
        scheduler: address of a dask.distributed scheduler whose workers take the subjects of --data, such as
            `tcp://10.0.0.1:8786`; they must see the same files under the same paths.
        force: overwrite.

    Returns:
        The label maps, those that were there before included.

    Raises:
        UserError: model, scans, names or folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cohort import Cohort
    from medprism.data.modalities import canonical
    from medprism.inference import jobs, tables_subsets
    from medprism.inference.components import described
    from medprism.inference.run import Work, run
    from medprism.inference.segmentation import SegmentationModel
    from medprism.inference.segmented import files_beside
    from medprism.inference.workers import load_for
    from medprism.io.nifti import sidecar_path

    jobs.require_one(image, data, scheduler)
    out = Path(out)
    loaded, workers = load_for(SegmentationModel, model, device=device, precision=precision, scheduler=scheduler)
    asked = None if reference is None else canonical(reference)
    if asked not in (None, *loaded.modalities):
        raise UserError(f"expected a reference among {', '.join(loaded.modalities)}, got {reference}")
    rule = described(small or {}, loaded.regions) or None

    reference_for = partial(_reference, loaded, asked=asked, required=bool(image))
    work = Work(
        doing="segmenting",
        outputs="Label maps",
        make=partial(_make, asked=asked, required=bool(image), small=small, probabilities=probabilities),
        facts=lambda job: {
            "ModelSHA256": loaded.card.get("sha256"),
            "GridOf": reference_for(list(job.images)),
            "Small": rule,
        },
        beside=lambda path: files_beside(path, loaded.foreground_labels if probabilities else (), raw=bool(small)),
    )
    if image:
        job = jobs.job_of_files(image, lambda given: {"seg": out}, loaded.modalities)
        reference_for(list(job.images))
        sidecar_path(out)  # refuses a name of another format before any work
        tell = partial(tables_subsets.one_subject, loaded, job)
        made = run(work, loaded, [job], keep=False, force=force, tell=tell)
        tables_subsets.volumes(sidecar_path(out))
        return made
    if out.name.endswith((".nii", ".nii.gz")):
        raise UserError(f"expected a folder for the label maps of a cohort, got {out}; give one as --out")
    cohort = Cohort.load(Path(str(data)))

    def outputs(subject: Subject, given: Sequence[str]) -> dict[str, Path]:
        return {"seg": out / jobs.place(cohort, subject, "seg", reference_for(given))}

    todo = jobs.jobs_of_cohort(cohort, loaded.modalities, outputs)
    if todo and jobs.is_bids(cohort):
        jobs.describe_bids(cohort, out, "Segmentations")
    tell = partial(tables_subsets.whole_cohort, loaded, cohort, todo)
    return run(work, loaded, todo, keep=True, force=force, workers=workers, tell=tell)


def _reference(model: Any, given: Sequence[str], *, asked: str | None, required: bool) -> str:  # noqa: ANN401
    """Subjects of a cohort that lack the reference asked for have their map on another scan's grid."""
    name: str = model.reference_of(given, asked if required or asked in given else None)
    return name


def _make(
    model: Any,  # noqa: ANN401
    job: Job,
    names: Sequence[str],
    progress: Callable[[float], None],
    *,
    asked: str | None,
    required: bool,
    small: Mapping[str, float] | None,
    probabilities: bool,
) -> Mapping[str, Segmentation]:
    reference = _reference(model, list(job.images), asked=asked, required=required)
    return {
        "seg": model.segment(
            job.images, reference=reference, small=small, probabilities=probabilities, progress=progress
        )
    }
