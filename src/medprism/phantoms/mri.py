"""Signal equations and tissue constants at 3 T: the one imaging law per modality.

Times in ms, proton density relative to water, contrast agent in mM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medprism.phantoms.box import Array

# Longitudinal relaxivity of gadobutrol in human plasma at 3 T, 1/(mM s): 4.97 ± 0.59, Szomolanyi et al. 2019,
# Investigative Radiology 54:559, 10.1097/RLI.0000000000000577.
R1_GADOBUTROL = 4.97


@dataclass(frozen=True)
class Tissue:
    """Relaxation of one kind of tissue.

    Attributes:
        t1: ms.
        t2: ms.
        pd: Proton density, water = 1.
        gadolinium: Concentration some minutes after injection, mM.
        texture: Spread of T1 and T2 within one person, log scale (proton density varies a fifth of it).
        source: Where the values come from.
    """

    t1: float
    t2: float
    pd: float
    gadolinium: float
    texture: float
    source: str


TISSUES: dict[str, Tissue] = {
    "WM": Tissue(900.0, 74.0, 0.70, 0.02, 0.04, ""),
    "GM": Tissue(1450.0, 99.0, 0.82, 0.04, 0.04, ""),
    "CSF": Tissue(4308.7, 1885.5, 1.0, 0.0, 0.01, ""),
    "NCR": Tissue(2400.0, 220.0, 0.94, 0.05, 0.20, ""),
    "ED": Tissue(1500.0, 145.0, 0.86, 0.03, 0.10, ""),
    "ET": Tissue(1500.0, 120.0, 0.86, 0.25, 0.12, ""),
    "NET": Tissue(1800.0, 170.0, 0.88, 0.03, 0.12, ""),
}


@dataclass(frozen=True)
class Sequence:
    """Settings of one acquisition.

    Attributes:
        kind: Which equation.
        tr: Repetition time, ms.
        te: Echo time (effective, for echo trains), ms.
        ti: Inversion time, ms; inversion recovery only.
        flip: Flip angle, degrees; gradient echo only.
    """

    kind: Literal["spin_echo", "inversion_recovery", "gradient_echo"]
    tr: float
    te: float
    ti: float = 0.0
    flip: float = 90.0

    def signal(self, t1: Array, t2: Array, pd: Array) -> Array:
        """Real-valued signal; an inverted magnetisation is negative."""
        if self.kind == "spin_echo":
            return spin_echo(t1, t2, pd, tr=self.tr, te=self.te)
        if self.kind == "inversion_recovery":
            return inversion_recovery(t1, t2, pd, tr=self.tr, te=self.te, ti=self.ti)
        return gradient_echo(t1, t2, pd, tr=self.tr, te=self.te, flip=self.flip)


def spin_echo(t1: Array, t2: Array, pd: Array, *, tr: float, te: float) -> Array:
    """PD (1 − exp(−TR/T1)) exp(−TE/T2), for TE ≪ TR."""
    return np.asarray(pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2), np.float32)


def inversion_recovery(t1: Array, t2: Array, pd: Array, *, tr: float, te: float, ti: float) -> Array:
    """PD (1 − 2 exp(−TI/T1) + exp(−TR/T1)) exp(−TE/T2): inversion, then a spin echo, for TE ≪ TR."""
    return np.asarray(pd * (1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2), np.float32)


def gradient_echo(t1: Array, t2: Array, pd: Array, *, tr: float, te: float, flip: float) -> Array:
    """Spoiled gradient echo in the steady state, PD sin α (1 − E) / (1 − E cos α) exp(−TE/T2), E = exp(−TR/T1).

    T2 stands for T2*: at the few ms of a T1-weighted TE the difference is below the noise.
    """
    alpha = float(np.deg2rad(flip))
    recovery = np.exp(-tr / t1)
    steady = np.sin(alpha) * (1 - recovery) / (1 - recovery * np.cos(alpha))
    return np.asarray(pd * steady * np.exp(-te / t2), np.float32)


def with_contrast(t1: Array, gadolinium: Array | float) -> Array:
    """T1 in ms after contrast agent of the given concentration in mM: 1/T1 grows by r1·[Gd]."""
    return np.asarray(1 / (1 / t1 + R1_GADOBUTROL * 1e-3 * gadolinium), np.float32)
