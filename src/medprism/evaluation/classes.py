"""Accuracy, AUC and F1 of a set of subjects, and of the sets that a bootstrap draws from it.

- `acc`: share of the subjects whose likeliest class is theirs.
- `balanced_acc`: that share within each class, mean over classes.
- `auc`: how often, of a subject of a class and one of another, the first has the larger probability of it, ties
  counting half (Hanley and McNeil 1982); mean over classes, which for two classes is the usual one.
- `f1`: 2 true positives / (2 true positives + false positives + false negatives) of each class, mean over classes
  (macro), as of scikit-learn.

Classes without which a number has no meaning are left out of its mean: those without subjects (`balanced_acc`), without
subjects or without others (`auc`), neither found nor there (`f1`).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

CLASS_METRICS = ("acc", "balanced_acc", "auc", "f1")

Array = NDArray[np.float64]


def rated(likely: Array, truth: NDArray[np.int64], weights: Array) -> dict[str, Array]:
    """All numbers, for each of R sets.

    Args:
        likely: (n, K) probability of each class.
        truth: (n,) the class of each subject, from 0 to K − 1.
        weights: (R, n) how often each subject is in each set.

    Returns:
        Metric -> (R,); NaN where it has no meaning.
    """
    count = likely.shape[1]
    guess = likely.argmax(axis=1)
    pairs = np.eye(count * count)[truth * count + guess]
    found = (weights @ pairs).reshape(-1, count, count)  # sets, truth, guess
    right, there, guessed = np.diagonal(found, axis1=1, axis2=2), found.sum(axis=2), found.sum(axis=1)
    return {
        "acc": _ratio(right.sum(axis=1), there.sum(axis=1)),
        "balanced_acc": _mean(_ratio(right, there)),
        "auc": _mean(np.stack([_auc(likely[:, k], truth == k, weights) for k in range(count)], axis=1)),
        "f1": _mean(_ratio(2 * right, there + guessed)),
    }


def _auc(score: Array, own: NDArray[np.bool_], weights: Array) -> Array:
    """Area under the ROC curve of one class against the others, for each set: (R,)."""
    ahead = score[own][:, None] - score[~own][None]
    wins = np.where(ahead > 0, 1.0, np.where(ahead == 0, 0.5, 0.0))
    mine, others = weights[:, own], weights[:, ~own]
    return _ratio(((mine @ wins) * others).sum(axis=1), mine.sum(axis=1) * others.sum(axis=1))


def _ratio(above: Array, below: Array) -> Array:
    ratio: Array = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio


def _mean(values: Array) -> Array:
    """Over the columns that are numbers; NaN where none is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        mean: Array = np.nanmean(values, axis=1)
    return mean
