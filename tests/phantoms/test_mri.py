import numpy as np
import pytest

from medprism.phantoms.mri import (
    R1_GADOBUTROL,
    TISSUES,
    Sequence,
    gradient_echo,
    inversion_recovery,
    spin_echo,
    with_contrast,
    with_iron,
)

T1, T2, PD = (np.asarray(values, np.float32) for values in ([832, 1331, 4308], [79, 110, 1885], [0.7, 0.8, 1.0]))


def bloch(t1, pd, *, tr, ti=None, flip=90.0, repeats=400):
    """Longitudinal magnetisation in the steady state just before the last pulse, by stepping through repetitions."""
    z = pd
    for _ in range(repeats):
        if ti is None:
            z = z * np.cos(np.deg2rad(flip))
            z = pd - (pd - z) * np.exp(-tr / t1)
        else:  # 90° empties, recovery to the next inversion, inversion, recovery for TI
            z = pd * (1 - np.exp(-(tr - ti) / t1))
            z = pd - (pd + z) * np.exp(-ti / t1)
    return z


def test_spin_echo_against_stepping():
    expected = bloch(T1, PD, tr=600) * np.exp(-15 / T2)
    assert spin_echo(T1, T2, PD, tr=600, te=15) == pytest.approx(expected, rel=1e-4)


def test_inversion_recovery_against_stepping():
    expected = bloch(T1, PD, tr=9000, ti=2480) * np.exp(-95 / T2)
    assert inversion_recovery(T1, T2, PD, tr=9000, te=95, ti=2480) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_gradient_echo_against_stepping():
    expected = bloch(T1, PD, tr=8, flip=16, repeats=6000) * np.sin(np.deg2rad(16)) * np.exp(-3 / T2)
    assert gradient_echo(T1, T2, PD, tr=8, te=3, flip=16) == pytest.approx(expected, rel=1e-3)


def test_gradient_echo_is_largest_at_the_ernst_angle():
    t1 = np.float32(1000)
    ernst = np.rad2deg(np.arccos(np.exp(-20 / 1000)))
    at, below, above = (
        gradient_echo(t1, np.float32(80), np.float32(1), tr=20, te=0, flip=ernst + d) for d in (0, -3, 3)
    )
    assert at > below
    assert at > above


def test_inversion_recovery_is_null_where_half_has_recovered():
    t1, tr = np.float32(4300), 9000
    ti = 4300 * np.log(2 / (1 + np.exp(-tr / 4300)))
    assert inversion_recovery(t1, np.float32(1800), np.float32(1), tr=tr, te=0, ti=ti) == pytest.approx(0, abs=1e-6)


def test_contrast_agent_and_iron_add_rates():
    assert 1e3 / with_contrast(T1, 0.2) - 1e3 / T1 == pytest.approx(0.2 * R1_GADOBUTROL, rel=1e-3)
    assert np.array_equal(with_iron(T2, np.zeros(3, np.float32)), T2)
    assert (with_iron(T2, np.full(3, 20, np.float32)) < T2).all()


def test_contrast_agent_shortens_t1_as_was_measured():
    """Mean fall of T1 (ms) in normal tissue, oedema and enhancing tumour, see the table's source."""
    for name, fall in {"WM": 32, "ED": 123, "ET": 838}.items():
        tissue = TISSUES[name]
        assert tissue.t1 - with_contrast(np.float32(tissue.t1), tissue.gadolinium) == pytest.approx(fall, rel=0.05)


def test_sequence_names_its_equation():
    assert np.array_equal(Sequence("spin_echo", 600, 15).signal(T1, T2, PD), spin_echo(T1, T2, PD, tr=600, te=15))
    assert Sequence("inversion_recovery", 9000, 95, ti=2480).signal(T1, T2, PD)[2] == pytest.approx(0, abs=0.01)
    assert np.array_equal(
        Sequence("gradient_echo", 8, 3, flip=16).signal(T1, T2, PD), gradient_echo(T1, T2, PD, tr=8, te=3, flip=16)
    )
