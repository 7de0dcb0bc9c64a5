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
# Growth of 1/T2 with iron, 1/s per mg/100 g. Chosen: brings the T2 of a pallidum to about 65 ms.
R2_IRON = 0.3


@dataclass(frozen=True)
class Relaxation:
    """Constants of one kind of tissue.

    Attributes:
        t1: ms.
        t2: ms.
        pd: Proton density, water = 1.
        gadolinium: Concentration some minutes after injection, mM.
        texture: Spread of T1 and T2 within one person, log scale (proton density varies a fifth of it).
    """

    t1: float
    t2: float
    pd: float
    gadolinium: float
    texture: float


# T1 and T2 of white and grey matter: Wansapura et al. 1999, JMRI 9:531 (832, 79.2 and 1331, 110 ms).
# Water of white and grey matter: 69.1 and 83.7 %, Frontiers in Neurology 10:1333 (2019), 10.3389/fneur.2019.01333.
# T1 and T2 of CSF: 4308.7 and 1885.5 ms in the subarachnoid space at 3 T, PMC10696635 (2023).
# T1 of venous blood: 1584 ms, Lu et al. 2004, MRM 52:679, 10.1002/mrm.20178.
# Contrast agent of WM, ED and ET: such that T1 falls by about 32, 123 and 838 ms, the means found in normal appearing
# tissue, peritumoral oedema and enhancing glioblastoma ("Quantitative T1 mapping indicates tumor infiltration
# beyond the enhancing part of glioblastomas", Goethe University Frankfurt, 2020).
# T2 of non-enhancing tumour lies in 125 to 250 ms (Ellingson et al., "Quantification of Nonenhancing Tumor Burden in
# Gliomas Using Effective T2 Maps Derived from Dual-Echo Turbo Spin-Echo MRI").
# All else, also the spreads, is chosen without a source: so that the parts of a tumour look as radiologists know them.
TISSUES: dict[str, Relaxation] = {
    "WM": Relaxation(832.0, 79.2, 0.691, 0.0097, 0.07),
    "GM": Relaxation(1331.0, 110.0, 0.837, 0.010, 0.07),
    "CSF": Relaxation(4308.7, 1885.5, 1.0, 0.0, 0.01),
    "vessel": Relaxation(1584.0, 45.0, 0.85, 1.0, 0.05),
    "NCR": Relaxation(2500.0, 250.0, 0.95, 0.03, 0.20),
    "ED": Relaxation(1500.0, 150.0, 0.85, 0.012, 0.08),
    "ET": Relaxation(1500.0, 120.0, 0.86, 0.17, 0.15),
    "NET": Relaxation(1800.0, 170.0, 0.90, 0.012, 0.12),
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


def with_iron(t2: Array, iron: Array) -> Array:
    """T2 in ms with iron in mg per 100 g above the cortex's: 1/T2 grows in proportion."""
    return np.asarray(1 / (1 / t2 + R2_IRON * 1e-3 * iron), np.float32)


def with_contrast(t1: Array, gadolinium: Array | float) -> Array:
    """T1 in ms after contrast agent of the given concentration in mM: 1/T1 grows by r1·[Gd]."""
    return np.asarray(1 / (1 / t1 + R1_GADOBUTROL * 1e-3 * gadolinium), np.float32)
