"""medprism: learning from multi-modal 3-D medical scans of which some are always missing."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medprism.inference.load import AnyModel

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str | Path, device: str = "auto") -> "AnyModel":
    """A trained model from its folder, or from the folder of the run that made it.

    It has the method of the command for its task: `synthesize`, `segment` or `classify`.

    Args:
        path: model or run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        medprism.errors.UserError: no such model, an altered one, or no such device.
    """
    from medprism.inference.load import load as load_any  # here, so that `import medprism` does not wait for torch

    return load_any(path, device)
