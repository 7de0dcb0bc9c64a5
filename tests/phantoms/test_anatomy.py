from dataclasses import replace

import numpy as np
import pytest

from medprism.phantoms.anatomy import draw_anatomy, tissue
from medprism.phantoms.box import head_box
from medprism.phantoms.deformation import jacobian
from medprism.phantoms.template import load_template

BOX = head_box(4.0)


def brain(anatomy):
    found = tissue(anatomy, anatomy.to_template(BOX.centres()))
    return found.fractions, found.inside > 0.5


@pytest.fixture(scope="module")
def persons():
    return [draw_anatomy(np.random.default_rng(seed), load_template()) for seed in range(5)]


def test_fractions_add_up_to_one(persons):
    for person in persons:
        fractions, _ = brain(person)
        assert fractions.min() > -1e-5
        assert fractions.sum(0) == pytest.approx(1, abs=1e-5)


def test_volumes_are_those_of_adults(persons):
    for person in persons:
        fractions, inside = brain(person)
        white, grey, csf, vessel = fractions[:, inside].sum(1) * 0.064  # ml
        assert 350 < white < 950
        assert 500 < grey < 1200
        assert 80 < csf < 600
        assert 0 < vessel < 20


def test_nobody_is_folded(persons):
    for person in persons:
        assert jacobian(person.displacement, person.template.coarse).min() > 0


def test_persons_differ_and_seeds_repeat(persons):
    (one, inside), (other, _) = (brain(person) for person in persons[:2])
    assert np.abs(one - other)[:, inside].mean() > 0.1
    again = draw_anatomy(np.random.default_rng(0), load_template())
    assert np.array_equal(brain(again)[0], one)


def test_atrophy_widens_the_sulci(persons):
    young, old = (brain(replace(persons[0], atrophy=atrophy)) for atrophy in (0.0, 1.0))
    assert np.array_equal(young[1], old[1])
    assert old[0][2][old[1]].sum() > 1.3 * young[0][2][young[1]].sum()


def test_ventricles_grow_with_age():
    """Same random numbers but for the age: CSF deep in the brain."""

    class Fixed:
        def __init__(self, age):
            self.rng, self.age = np.random.default_rng(3), age

        def beta(self, *_):
            return self.age

        def __getattr__(self, name):
            return getattr(self.rng, name)

    deep = []
    for age in (0.1, 0.9):
        person = replace(draw_anatomy(Fixed(age), load_template()), atrophy=0.5)
        fractions, inside = brain(person)
        x, y, z = BOX.centres().T
        box = (np.abs(x) < 36) & (y > -60) & (y < 40) & (z > 4) & (z < 36) & inside
        deep.append(fractions[2, box].sum())
    assert deep[1] > 1.4 * deep[0]
