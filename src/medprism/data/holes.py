"""Make a complete cohort incomplete: scans removed by chance, for experiments on missing modalities."""

import hashlib
from collections.abc import Sequence

from medprism.data.subject import Subject
from medprism.errors import UserError


def make_holes(subjects: Sequence[Subject], rate: float, seed: int = 0) -> tuple[Subject, ...]:
    """Remove each scan with probability `rate`, but never the last scan of a subject.

    The draw of a scan depends on (seed, subject, modality) alone: on no order and no other subject. With the same seed
    the holes of a lower rate are among the holes of a higher one, so a sweep over rates removes more and more of the
    same. Files are not touched: a removed scan is an absent key.

    Args:
        subjects: Whom to take from (the training side; a test is never thinned).
        rate: Probability from 0 to below 1.
        seed: Another seed, other holes.

    Raises:
        UserError: If the rate is no such probability.
    """
    if not 0 <= rate < 1:
        raise UserError(f"expected a missing rate from 0 to below 1, got {rate}; for example 0.3")
    return tuple(_thinned(subject, rate, seed) for subject in subjects) if rate else tuple(subjects)


def _thinned(subject: Subject, rate: float, seed: int) -> Subject:
    draws = {m: _uniform(f"{seed}/{subject.subject}/{m}") for m in subject.images}
    last = max(draws, key=lambda m: (draws[m], m))
    return subject.keeping(tuple(m for m, draw in draws.items() if draw >= rate or m == last))


def _uniform(key: str) -> float:
    """A number in [0, 1) from the first 53 bits of SHA-256."""
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53
