"""Phantoms: scans made from physics, of persons who do not exist, with the truth known."""

from medprism.phantoms.body import Body, body_subject
from medprism.phantoms.body_cohort import write_body_cohort
from medprism.phantoms.brain import Brain, brain_subject
from medprism.phantoms.cohort import write_brain_cohort

__all__ = ["Body", "Brain", "body_subject", "brain_subject", "write_body_cohort", "write_brain_cohort"]
