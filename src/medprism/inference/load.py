"""A model folder as an object of the class that its task needs."""

from pathlib import Path

from medprism.errors import UserError
from medprism.inference.classification import ClassificationModel
from medprism.inference.model import Model
from medprism.inference.segmentation import SegmentationModel
from medprism.inference.trained import task_of, use_of

AnyModel = Model | SegmentationModel | ClassificationModel

CLASSES: dict[str, type[AnyModel]] = {one.task: one for one in (Model, SegmentationModel, ClassificationModel)}


def load(path: str | Path, device: str = "auto") -> AnyModel:
    """A trained model of any task.

    Args:
        path: model or run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UserError: no such model, an altered one, one for an unknown task, or no such device.
    """
    task = task_of(path)
    if task not in CLASSES:
        raise UserError(f"expected a model for {' or '.join(CLASSES)}, got one for {task} in {path}; {use_of(task)}")
    return CLASSES[task].load(path, device)
