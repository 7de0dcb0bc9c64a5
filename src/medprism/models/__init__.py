"""Networks: one backbone a file, the prior, and the frame that holds them."""

from medprism.models.prism import NetworkConfig, Prism, build

__all__ = ["NetworkConfig", "Prism", "build"]
