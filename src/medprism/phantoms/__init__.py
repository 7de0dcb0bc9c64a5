"""Phantoms: scans made from physics, of persons who do not exist, with the truth known."""

from medprism.phantoms.brain import Brain, brain_subject
from medprism.phantoms.cohort import write_brain_cohort

__all__ = ["Brain", "brain_subject", "write_brain_cohort"]
