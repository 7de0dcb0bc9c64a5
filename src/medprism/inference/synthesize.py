"""The verb `synthesize`: the scans that a patient does not have, from those that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medprism.errors import UserError


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
    force: bool = False,
) -> list[Path]:
    """Generate the scans that a patient, or each subject of a cohort, does not have.

    Args:
        model: model folder, or the folder of the run that made it.
        out: folder for the synthetic scans, each with a JSON sidecar; not one that holds real scans.
        image: one patient's scans by modality, as in `--image.t1n a.nii.gz --image.t2w b.nii.gz`.
        data: cohort.json instead: every subject of it; what a stopped run has done is kept.
        target: the modality to generate, or `all` that are absent.
        uncertainty: also write a map of the standard deviation over single sources and rotations; takes 5 to 10 times
            as long.
        intensity: `like-train`: as the typical scan in training (CT in HU, PET in SUV); `unit`: 0 to 1.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `bf16` is faster on recent GPUs and a little less exact.
        force: overwrite.

    Returns:
        The synthetic scans, those that were there before included.

    Raises:
        UserError: model, scans, names or folder do not fit together.
    """
    # Here, so that the help need not wait for torch.
    from medprism.data.cohort import Cohort
    from medprism.inference import jobs, tables
    from medprism.inference.model import Model
    from medprism.inference.run import run

    if bool(image) == (data is not None):
        raise UserError("expected either scans (--image.t1n FILE …) or a cohort (--data cohort.json); give one of them")
    out = Path(out)
    loaded = Model.load(model, device, precision=precision)
    knows, makes = loaded.modalities, loaded.makes
    if image:
        job = jobs.job_of_files(image, target, out, knows, makes)
        tables.one_subject(loaded, job)
        return run(loaded, [job], uncertainty=uncertainty, intensity=intensity, keep=False, force=force)
    cohort = Cohort.load(Path(str(data)))
    todo = jobs.jobs_of_cohort(cohort, target, out, knows, makes)
    tables.whole_cohort(loaded, cohort, todo)
    if todo and jobs.is_bids(cohort):
        jobs.describe_bids(cohort, out)
    return run(loaded, todo, uncertainty=uncertainty, intensity=intensity, keep=True, force=force)
