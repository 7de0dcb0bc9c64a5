import numpy as np
import pytest

from medprism.phantoms import tumour as module
from medprism.phantoms.anatomy import draw_anatomy, tissue
from medprism.phantoms.box import Box
from medprism.phantoms.deformation import jacobian
from medprism.phantoms.template import load_template
from medprism.phantoms.tumour import grow

BOX = Box((0.0, 0.0, 0.0), 2.0, (64, 64, 64))


def fisher(diffusivity, volume):
    return module._fisher(diffusivity.astype(np.float32), (diffusivity > 0.05).astype(np.float32), BOX, volume)


def radius(density, level=0.5):
    return (np.count_nonzero(density > level) * 8 * 3 / (4 * np.pi)) ** (1 / 3)


def test_front_moves_at_the_speed_of_fisher_and_kolmogorov():
    """2 √(D ρ), from which a sphere's front stays behind by its curvature, 2 D / r (Murray, Mathematical Biology)."""
    diffusivity = np.full(BOX.shape, 4.0)
    early, late = (fisher(diffusivity, 4 / 3 * np.pi * r**3) for r in (24, 40))
    # in the middle c is 1, so there the exposure tells the time
    time = late[1][32, 32, 32] - early[1][32, 32, 32]
    speed = (radius(late[0]) - radius(early[0])) / time
    assert speed == pytest.approx(2 * np.sqrt(4.0) - 2 * 4.0 / 32, rel=0.12)


def test_growth_is_faster_in_white_matter_and_stops_at_csf():
    diffusivity = np.full(BOX.shape, 9.0)
    diffusivity[40:] = 9.0 * 0.2
    diffusivity[:, :24] = 0.0
    density, exposure = fisher(diffusivity, 150e3)
    assert density[:, :24].max() == 0
    assert np.isfinite(exposure).all()
    white, grey = (np.count_nonzero(density[part] > 0.12) for part in (slice(0, 32), slice(32, 64)))
    assert white > 1.2 * grey  # they would be equal
    assert density.min() >= 0
    assert density.max() <= 1.001


@pytest.fixture(scope="module")
def grown():
    anatomy = draw_anatomy(np.random.default_rng(7), load_template())
    return anatomy, [grow(np.random.default_rng(seed), anatomy) for seed in (0, 1, 2)]


def test_parts_are_nested_and_fit_into_a_voxel(grown):
    _, tumours = grown
    for tumour in tumours:
        points = tumour.box.centres()
        parts = tumour.parts(points, np.zeros(len(points), np.float32))
        assert parts.min() >= 0
        assert parts.sum(0).max() <= 1 + 1e-5
        necrosis, oedema, rim, solid = parts.sum(1)
        if tumour.enhances:
            assert solid == 0
            assert min(necrosis, oedema, rim) > 0
        else:
            assert necrosis == rim == 0
            assert solid > 0
        # far away there is nothing
        assert tumour.parts(points + 500, np.zeros(len(points), np.float32)).max() == 0


def test_necrosis_is_deeper_than_the_rim_and_the_rim_than_oedema(grown):
    _, tumours = grown
    for tumour in tumours:
        if not tumour.enhances:
            continue
        oedema, core, necrosis, density = tumour.age
        assert (core[necrosis > 0] > 0).all()
        assert density[necrosis > 0].mean() > density[core > 0].mean() > density[oedema > 0].mean()


def test_mass_effect_pushes_outwards_without_folding(grown):
    _, tumours = grown
    for tumour in tumours:
        assert jacobian(tumour.displacement, tumour.around).min() > 0
        points = tumour.around.centres()
        shift = tumour.before(points) - points
        largest = np.linalg.norm(shift, axis=1).max()
        assert 0.3 * tumour.push < largest < 3 * tumour.push
        # what is seen at a place came from nearer to the tumour
        densest = np.unravel_index(np.argmax(tumour.age[1]), tumour.box.shape)
        centre = tumour.box.world(np.asarray([densest]))
        inwards = (shift * (centre - points)).sum(1)
        assert inwards.sum() > 0


def test_tumours_start_in_white_matter_of_the_cerebrum(grown):
    anatomy, tumours = grown
    for tumour in tumours:
        x, _, z = tumour.seed
        assert abs(x) > 14
        assert z > -12
        found = tissue(anatomy, anatomy.to_template(np.asarray([tumour.seed], np.float32)))
        assert found.fractions[0, 0] > 0.2
        assert found.inside[0] > 0.5


def test_about_one_in_seven_is_low_grade(monkeypatch, grown):
    """The share is drawn first; growth itself is not needed to count."""
    anatomy, _ = grown

    def stop(*_):
        raise StopIteration

    monkeypatch.setattr(module, "_seed", stop)
    low = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        with pytest.raises(StopIteration):
            grow(rng, anatomy)
        low += np.random.default_rng(seed).random() < module.LOW_GRADE
    assert 240 < low < 360


def test_a_seed_is_found_where_interpolated_fractions_undershoot():
    """Index 35 of seed 0 has white-matter fractions just below zero."""
    from medprism.phantoms.brain import brain_subject

    assert (brain_subject(0, 35, spacing=8.0).label > 0).any()


def test_a_share_of_low_grade_can_be_asked_for():
    """It decides whether the tumour enhances and how far it pushes, and nothing else of the person."""
    from medprism.phantoms.brain import LABELS, brain_subject

    none, all_ = (brain_subject(0, 1, spacing=8.0, low_grade=share) for share in (0.0, 1.0))
    assert (none.truth["enhances"], all_.truth["enhances"]) == (True, False)
    assert (none.label == LABELS["ET"]).any()
    assert not (all_.label == LABELS["ET"]).any()
    assert {name for name in none.truth if none.truth[name] != all_.truth[name]} == {"enhances", "mass_effect_mm"}
