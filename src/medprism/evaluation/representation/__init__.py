"""What a shared encoder represents: the person, the modality, or how the scan lies. See docs/evaluation.md."""
