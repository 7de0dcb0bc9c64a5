"""medprism: learning from multi-modal 3-D medical scans of which some are always missing."""

__version__ = "0.1.0"
