"""What the configuration of a bundle calls: persons in, results on disk, by the ways that the commands go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

from medprism.data import layouts
from medprism.errors import UserError
from medprism.inference import jobs
from medprism.inference.classification import ClassificationModel
from medprism.inference.inputs import by_name, choose_targets
from medprism.inference.load import AnyModel
from medprism.inference.model import Model
from medprism.inference.run import Output, Work, run
from medprism.inference.segmentation import SegmentationModel

SUBJECT = "subject"


def patients(folder: str | Path) -> list[dict[str, str]]:
    """Who is in a folder of scans: `subject` and a file for each modality.

    Args:
        folder: in any layout that `medprism inspect` reads; `<subject>/<modality>.nii.gz`, or one person's files.

    Raises:
        UserError: there are no scans, or a person has two of a modality.
    """
    root = Path(folder)
    found, _ = layouts.read(root)
    if found.problems:
        subject, problems = next(iter(found.problems.items()))
        raise UserError(f"expected usable scans of all subjects, got {subject}: {problems[0]}")
    return [
        {SUBJECT: one.subject, **{name: str(root / file) for name, file in one.images.items()}}
        for one in found.subjects()
        if one.images
    ]


class PatientInferer(Inferer):
    """From one person's files to results.

    Args:
        model: loaded.
        target: of a model that makes scans: a modality, or `all` that are absent.
        intensity: of the same, see `medprism synthesize`.
    """

    def __init__(self, model: AnyModel, target: str = "all", intensity: str = "like-train") -> None:
        super().__init__()
        self.model, self.target, self.intensity = model, target, intensity

    def __call__(  # type: ignore[override]  # files, not tensors
        self, inputs: Mapping[str, Any], network: object = None, progress: Callable[[float], None] | None = None
    ) -> Mapping[str, Output]:
        """Results by name, each of which can be saved.

        Args:
            inputs: modality -> file; what else there is (`subject`) is not looked at.
            network: not looked at, as the model has its own.
            progress: called with the part done.
        """
        images = self.images(inputs)
        if isinstance(self.model, SegmentationModel):
            return {"seg": self.model.segment(images, progress=progress)}
        if isinstance(self.model, ClassificationModel):
            return {"class": self.model.classify(images, progress=progress)}
        return self.model.synthesize(images, self.target, intensity=self.intensity, progress=progress)  # type: ignore[arg-type]

    def images(self, inputs: Mapping[str, Any]) -> dict[str, Path]:
        """The files that the model takes, in its order.

        Raises:
            UserError: there is none.
        """
        given = {name: Path(file) for name, file in inputs.items() if name in self.model.takes}
        return by_name(given, self.model.takes)

    def outputs(self, given: Sequence[str], folder: Path) -> dict[str, Path]:
        """Result -> its file, of canonical names given; none where all scans that it could make are there."""
        if isinstance(self.model, Model):
            if self.target == "all" and set(self.model.makes) <= set(given):
                return {}
            names = choose_targets(self.target, given, self.model.makes)
            return {name: folder / f"{name}.nii.gz" for name in names}
        if isinstance(self.model, SegmentationModel):
            return {"seg": folder / "seg.nii.gz"}
        return {"class": folder / "class.json"}

    def facts(self, given: Sequence[str]) -> dict[str, Any]:
        """What the sidecar of a result says if it is the one that would be made."""
        told = {"ModelSHA256": self.model.card.get("sha256")}
        if isinstance(self.model, Model):
            return {**told, "Intensity": self.intensity}
        if isinstance(self.model, SegmentationModel):
            return {**told, "GridOf": self.model.reference_of(given), "Small": None}
        return told


class Evaluator:
    """Persons one after the other; results that are there from the same model and scans are kept.

    Args:
        dataset: of dicts as `patients` has them; without `subject` they are numbered.
        inferer: makes the results.
        output_dir: they go to `<output_dir>/<subject>/`.
    """

    def __init__(self, dataset: Sequence[Mapping[str, Any]], inferer: PatientInferer, output_dir: str | Path) -> None:
        self.dataset, self.inferer, self.output_dir = dataset, inferer, Path(output_dir)

    def run(self) -> list[Path]:
        """Make what is not there yet.

        Returns:
            All results.

        Raises:
            UserError: something else is in the way, or scans cannot be used (then those of all others are done).
        """
        todo = [job for place in range(len(self.dataset)) if (job := self._job(place)).outputs]
        jobs.refuse_beside(todo, [file for job in todo for file in job.images.values()])
        work = Work(
            doing="inference",
            outputs="Results",
            make=lambda inferer, job, _, progress: inferer(job.images, progress=progress),
            facts=lambda job: self.inferer.facts(list(job.images)),
        )
        return run(work, self.inferer, todo, keep=True, force=False)

    def _job(self, place: int) -> jobs.Job:
        item = self.dataset[place]
        subject = str(item.get(SUBJECT, f"{place:04d}"))
        images = self.inferer.images(item)
        outputs = self.inferer.outputs(list(images), self.output_dir / subject)
        return jobs.Job(subject, images, outputs, [file.name for file in images.values()])


class Window(nn.Module):
    """The network for one window, all of whose scans are there unless it is told otherwise.

    Args:
        model: loaded.
    """

    def __init__(self, model: AnyModel) -> None:
        super().__init__()
        self.model, self.network = model, model.runner.network

    def forward(self, images: Tensor, present: Tensor | None = None) -> Tensor:
        """Images (B, M, X, Y, Z) where `present` (B, M) to all modalities, or logits of classes."""
        here = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device) if present is None else present
        if isinstance(self.model, ClassificationModel):
            out: Tensor = self.network.head(self.network.features(images, here))  # type: ignore[operator]
            return out
        name = "segment" if isinstance(self.model, SegmentationModel) else "generate"
        made: Tensor = getattr(self.network, name)(images, here)
        return made
