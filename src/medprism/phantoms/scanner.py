"""Scanner presets: what turns the same brain into two domains."""

from __future__ import annotations

from dataclasses import dataclass

from medprism.errors import UserError
from medprism.phantoms.mri import Sequence


@dataclass(frozen=True)
class Protocol:
    """One modality on one scanner.

    Attributes:
        sequence: Equation and timing.
        blur: Full width at half maximum of the point spread along x, y, z, mm; the slice axis is the widest.
        gain: Factor from signal to stored intensity.
        noise: Standard deviation of the noise of a 1 mm³ voxel, as a part of the signal of white matter.
        contrast: Acquired after the contrast agent.
    """

    sequence: Sequence
    blur: tuple[float, float, float]
    gain: float
    noise: float
    contrast: bool = False


@dataclass(frozen=True)
class Scanner:
    """A preset.

    Attributes:
        name: "A" or "B".
        bias: Spread of the logarithm of the receive field over the head.
        protocols: By modality.
    """

    name: str
    bias: float
    protocols: dict[str, Protocol]


_T1_A = Sequence("inversion_recovery", tr=2200, te=4, ti=1020)
_T1_B = Sequence("gradient_echo", tr=8.0, te=3.0, flip=16)

SCANNERS: dict[str, Scanner] = {
    "A": Scanner(
        "A",
        0.08,
        {
            "t1n": Protocol(_T1_A, (0.9, 0.9, 1.2), 1000, 0.035),
            "t1c": Protocol(_T1_A, (0.9, 0.9, 1.2), 1000, 0.035, contrast=True),
            "t2w": Protocol(Sequence("spin_echo", tr=4500, te=95), (0.8, 0.8, 1.6), 1000, 0.045),
            "t2f": Protocol(Sequence("inversion_recovery", tr=9000, te=95, ti=2480), (1.0, 1.0, 2.0), 2000, 0.05),
        },
    ),
    "B": Scanner(
        "B",
        0.12,
        {
            "t1n": Protocol(_T1_B, (1.0, 1.0, 1.0), 10000, 0.045),
            "t1c": Protocol(_T1_B, (1.0, 1.0, 1.0), 10000, 0.045, contrast=True),
            "t2w": Protocol(Sequence("spin_echo", tr=3200, te=110), (0.9, 0.9, 3.0), 700, 0.06),
            "t2f": Protocol(Sequence("inversion_recovery", tr=6000, te=125, ti=2030), (1.0, 1.0, 3.0), 1500, 0.07),
        },
    ),
}


def scanner_preset(name: str) -> Scanner:
    """The preset of that name.

    Raises:
        UserError: There is none.
    """
    if name not in SCANNERS:
        raise UserError(f"expected scanner {', '.join(SCANNERS)} or both, got {name!r}; choose one of them")
    return SCANNERS[name]
