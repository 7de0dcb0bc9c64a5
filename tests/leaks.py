"""No method may look at a scan that is not there."""

from itertools import product

import numpy as np


def assert_absent_is_unread(method, images, *, seed=0):
    """Whatever lies in the place of absent scans leaves the result bit-identical, for every non-empty subset.

    Args:
        method: (M, X, Y, Z) float32 images and (M,) bool present to an array or a tuple of arrays.
        images: a whole subject.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=images.shape).astype(np.float32)
    fillings = (0.0, noise, 1e9 * noise, np.float32(np.nan), np.float32(np.inf))
    for subset in product([False, True], repeat=len(images)):
        present = np.array(subset)
        if present.any():
            results = [
                method(np.where(present[:, None, None, None], images, filling).astype(np.float32), present)
                for filling in (fillings if not present.all() else fillings[:1])
            ]
            first, *others = (result if isinstance(result, tuple) else (result,) for result in results)
            assert all(np.isfinite(array).all() for array in first), f"not finite with {subset}"
            for other in others:
                assert all(a.tobytes() == b.tobytes() for a, b in zip(first, other, strict=True)), f"leak with {subset}"
