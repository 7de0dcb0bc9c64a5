"""Intensity augmentation by MONAI's transforms, each scan by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import (
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from numpy.typing import NDArray

from medprism.data.randomness import rng


class IntensityChange:
    """Scale, shift, noise and blur, each with a probability, of normalised intensities.

    Args:
        probability: of each of the four, for each scan.
    """

    def __init__(self, probability: float) -> None:
        self._change = Compose(
            [
                RandScaleIntensity(factors=0.2, prob=probability),
                RandShiftIntensity(offsets=0.1, prob=probability),
                RandGaussianNoise(std=0.1, prob=probability),
                RandGaussianSmooth((0.3, 0.8), (0.3, 0.8), (0.3, 0.8), prob=probability),
            ]
        )

    def __call__(
        self, images: NDArray[np.float32], names: Sequence[str | None], seed: int, key: tuple[int | str, ...]
    ) -> None:
        """Change images (M, X, Y, Z) in place; absent ones are left alone.

        Args:
            images: normalised.
            names: M modalities, None for those that are absent.
            seed: of the run.
            key: of the sample; with the scan's name the key of all draws.
        """
        for image, name in zip(images, names, strict=True):
            if name is not None:
                self._change.set_random_state(int(rng(seed, "intensity", *key, name).integers(2**31)))
                image[:] = np.asarray(self._change(torch.from_numpy(image[None])))[0]
