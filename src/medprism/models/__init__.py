"""Networks: one backbone a file, the prior, and the frames that hold them."""

from medprism.models.build import build
from medprism.models.prism import NetworkConfig, Prism

__all__ = ["NetworkConfig", "Prism", "build"]
