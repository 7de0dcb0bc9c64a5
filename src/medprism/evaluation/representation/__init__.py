"""What a shared encoder represents: the person, the modality, or how the scan lies. See docs/evaluation.md."""

TASK, PROTOCOL = "representation", "crops"

REGIONS = ("z", "x_h")
"""The encoder's bottleneck before the prior, and after it; the same without a prior."""

MEAN = "mean"
"""The group of the rows that tables show: over pairs of modalities, or over modalities."""
