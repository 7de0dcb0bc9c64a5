"""medprism: learning from multi-modal 3-D medical scans of which some are always missing."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medprism.inference.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str | Path, device: str = "auto") -> "Model":
    """A trained model from its folder, or from the folder of the run that made it.

    Args:
        path: model or run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        medprism.errors.UserError: no such model, an altered one, or no such device.
    """
    from medprism.inference.model import Model  # here, so that `import medprism` does not wait for torch

    return Model.load(path, device)
