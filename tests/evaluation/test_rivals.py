import numpy as np
import pytest

from medprism.evaluation.rivals import Rivals
from tests.evaluation.fakes import FakeEntry, entry, law


def test_identity_is_exact_on_an_affine_relation():
    rivals = Rivals.fit(entry(f"train-{k}") for k in range(3))
    test = entry("test")
    for i in range(3):
        for j in range(3):
            output = rivals.predict("identity", test.images(), test.foreground(), [i], j)
            inside = test.foreground()[i]
            np.testing.assert_allclose(output[inside], test.images()[j][inside], atol=1e-4)
            np.testing.assert_allclose(output[~inside], -4.0, atol=1e-5)


def test_identity_is_least_squares():
    entries = [entry(f"train-{k}", noise=1.0) for k in range(3)]
    curve = Rivals.fit(entries).curves[0, 1]
    x = np.concatenate([e.images()[0][e.foreground()[0]] for e in entries])
    y = np.concatenate([e.images()[1][e.foreground()[0]] for e in entries])
    assert (curve.slope, curve.intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)), rel=1e-5)


def _bent(name, bend, noise=0.0):
    made = entry(name)
    rng = np.random.default_rng(5)
    x = made.volumes[0]
    made.volumes[1] = np.where(made.masks[0], bend(x) + noise * rng.normal(size=x.shape), -3)
    return made


def test_lookup_recovers_a_bent_relation_and_beats_identity():
    def bend(x):
        return np.sin(2 * x) + 0.1 * x**2

    rivals = Rivals.fit(_bent(f"train-{k}", bend) for k in range(8))
    test = _bent("test", bend)
    inside = test.foreground()[0] & (np.abs(test.volumes[0]) < 2)
    errors = {}
    for rival in ("identity", "lookup"):
        output = rivals.predict(rival, test.images(), test.foreground(), [0], 1)
        errors[rival] = np.abs(output - test.volumes[1])[inside].max()
        np.testing.assert_allclose(output[~test.foreground()[0]], -3, atol=1e-5)
    assert errors["lookup"] < 0.03 < 0.5 < errors["identity"]


def test_lookup_is_the_conditional_mean_under_noise():
    rivals = Rivals.fit(_bent(f"train-{k}", np.square, noise=0.5) for k in range(20))
    curve = rivals.curves[0, 1]
    assert len(curve.centres) > 200
    assert (np.diff(curve.centres) > 0).all()
    middle = np.abs(curve.centres) < 1.5
    residual = curve.means[middle] - curve.centres[middle] ** 2
    assert abs(residual.mean()) < 0.05
    assert residual.std() < 0.2


def test_background_is_the_training_mean_outside_the_source():
    made = entry("train")
    made.volumes[1][~made.masks[0]] = np.linspace(-2, 0, (~made.masks[0]).sum())
    assert Rivals.fit([made]).curves[0, 1].background == pytest.approx(-1, abs=1e-5)


def test_order_of_subjects_is_irrelevant_and_absent_scans_are_unread():
    whole = entry("a", noise=1.0)
    holed = entry("b", noise=1.0, present=(True, False, True))
    holed.volumes[1] = np.nan
    one, other = Rivals.fit([whole, holed]), Rivals.fit([holed, whole])
    assert one.subjects[0, 2] == 2
    assert one.subjects[0, 1] == 1
    np.testing.assert_allclose(one.curves[0, 2].means, other.curves[0, 2].means, rtol=1e-9)
    assert np.isfinite(one.curves[0, 1].means).all()


def test_pair_without_training_subjects_has_no_rival():
    rivals = Rivals.fit([entry("a", present=(True, False, True)), entry("b", present=(False, True, True))])
    test = entry("test")
    assert rivals.predict("lookup", test.images(), test.foreground(), [0], 1) is None
    several = rivals.predict("lookup", test.images(), test.foreground(), [0, 2], 1)
    np.testing.assert_array_equal(several, rivals.predict("lookup", test.images(), test.foreground(), [2], 1))


def test_several_sources_are_averaged():
    rivals = Rivals.fit([entry("a", noise=1.0)])
    test = entry("test", noise=1.0)
    images, foreground = test.images(), test.foreground()
    first, second = (rivals.predict("identity", images, foreground, [i], 2) for i in (0, 1))
    both = rivals.predict("identity", images, foreground, [0, 1], 2)
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)


def test_constant_source_gives_the_mean():
    made = entry("a")
    made.volumes[0][made.masks[0]] = 1.0
    curve = Rivals.fit([made]).curves[0, 1]
    assert curve.slope == 0
    assert curve.intercept == pytest.approx(made.volumes[1][made.masks[0]].mean(), rel=1e-5)


def test_law_of_the_fakes():
    made: FakeEntry = entry("a")
    inside = made.masks[0]
    np.testing.assert_allclose(law(2, 1, made.volumes[2])[inside], made.volumes[1][inside], atol=1e-5)
