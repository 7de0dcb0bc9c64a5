import json
from functools import lru_cache

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from medprism.errors import UserError
from medprism.phantoms.body import body_subject
from medprism.phantoms.body_canvas import draw_person
from medprism.phantoms.body_lesion import has_lesions
from medprism.phantoms.body_tissue import NAMES, TISSUES

SPACING = 7.0


@lru_cache
def body(index, domain="torso", scanner="A", spacing=SPACING, seed=0):
    return body_subject(seed, index, spacing, domain, scanner)


def sick(domain, seed=0):
    """The first index with lesions."""
    return next(i for i in range(2) if has_lesions(seed, i))


def organ(made, *names):
    there = np.isin(made.kind, [NAMES.index(name) for name in names])
    return binary_erosion(there) & (made.label == 0)


def test_same_arguments_same_bytes():
    again = body_subject(0, 0, SPACING, "torso", "A")
    for name, image in body(0).images.items():
        assert image.dtype == np.float32
        assert image.tobytes() == again.images[name].tobytes()
    assert again.label.tobytes() == body(0).label.tobytes()
    assert json.dumps(again.truth) == json.dumps(body(0).truth)
    assert (body_subject(1, 0, SPACING).images["ct"] != body(0).images["ct"]).any()


@pytest.mark.parametrize("domain", ["torso", "head-neck"])
def test_the_person_depends_on_neither_grid_nor_scanner(domain):
    index = sick(domain)
    one, other = body(index, domain), body(index, domain, "B", 9.0)
    assert one.truth == other.truth
    assert one.truth["lesions"]
    assert (one.label == 1).sum() * 7.0**3 == pytest.approx((other.label == 1).sum() * 9.0**3, rel=0.4, abs=4000)
    for name in ("lung", "muscle"):
        volumes = [(made.kind == NAMES.index(name)).sum() * s**3 for made, s in ((one, 7.0), (other, 9.0))]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.1)


def test_half_of_the_persons_have_lesions():
    for seed in range(4):
        ill = [has_lesions(seed, i) for i in range(40)]
        assert sum(ill) == 20
        assert all(ill[i] != ill[i + 1] for i in range(0, 40, 2))
    assert len({tuple(has_lesions(seed, i) for i in range(12)) for seed in range(8)}) > 1


@pytest.mark.parametrize("domain", ["torso", "head-neck"])
def test_label_and_truth_agree(domain):
    for index in (0, 1):
        made = body(index, domain)
        assert made.label.any() == has_lesions(0, index) == bool(made.truth["lesions"])
        assert set(np.unique(made.label)) <= {0, 1}
        assert all(image.shape == made.label.shape for image in made.images.values())


@pytest.mark.parametrize(
    ("domain", "name", "hu", "suv"),
    [
        ("torso", "liver", 12, 0.35),
        ("torso", "lung", 60, 0.35),
        ("torso", "muscle", 25, 0.35),
        ("torso", "fat", 40, 0.3),
        ("head-neck", "grey matter", 25, 2.5),
        ("head-neck", "lung", 70, 0.35),
        ("head-neck", "muscle", 30, 0.35),
    ],
)
def test_scans_show_the_organs_of_the_person(domain, name, hu, suv):
    for index in (0, 1):
        made = body(index, domain)
        inside = organ(made, name)
        assert inside.sum() > 30
        truth = draw_person(np.random.default_rng([0, index, *f"{domain}/person".encode()])).tissues[name]
        assert np.median(made.images["ct"][inside]) == pytest.approx(truth.hu, abs=hu)
        assert made.uptake[inside].mean() == pytest.approx(truth.suv, rel=0.15, abs=0.1)
        assert made.images["pet"][inside].mean() == pytest.approx(made.uptake[inside].mean(), abs=suv)


def test_persons_scatter_around_the_table():
    people = [draw_person(np.random.default_rng(i)) for i in range(200)]
    for name in ("liver", "lung", "palatine tonsil", "muscle"):
        suv = np.array([person.tissues[name].suv for person in people])
        assert np.median(suv) == pytest.approx(TISSUES[name].suv, rel=0.12)
        assert suv.std() > 0.1 * suv.mean()
    assert 0.3 < np.mean([person.female for person in people]) < 0.6
    assert all(0.75 < side < 1.3 for person in people for side in person.size)


def test_without_correction_the_skin_and_the_lungs_shine_and_the_middle_is_dark():
    made = body(1 - sick("torso"))
    nac = made.images["nac"]
    inside = made.kind != NAMES.index("air")
    inside &= made.kind != NAMES.index("couch")
    chest = np.zeros_like(inside)
    lung = made.kind == NAMES.index("lung")
    rows = np.flatnonzero(lung.sum((0, 1)) > 0.6 * lung.sum((0, 1)).max())
    chest[..., rows] = True
    depth = np.stack([distance_transform_edt(inside[..., z] | lung[..., z]) for z in range(nac.shape[2])], 2) * SPACING
    soft = np.isin(made.kind, [NAMES.index(n) for n in ("muscle", "mediastinum", "marrow", "oesophagus")])
    shining = nac[organ(made, "lung") & chest].mean()
    middle = nac[soft & chest & (depth > 60)].mean()
    assert shining > 1.3 * middle
    belly = np.zeros_like(inside)
    belly[..., : nac.shape[2] // 5] = True
    rim = nac[inside & belly & (depth <= 1.5 * SPACING)].mean()
    deep = nac[belly & organ(made, "fat", "muscle") & (depth > 70)].mean()
    assert rim > 1.5 * deep
    # with correction it is the other way round
    pet = made.images["pet"]
    assert pet[organ(made, "lung") & chest].mean() < pet[soft & chest & (depth > 60)].mean()


@pytest.mark.parametrize("domain", ["torso", "head-neck"])
def test_lesions_are_hot_and_not_air(domain):
    for seed in (0, 3):
        made = body(sick(domain, seed), domain, seed=seed)
        lesion = made.label == 1
        brightest = max(lesion_["suv"] for lesion_ in made.truth["lesions"])
        assert 2 < made.images["pet"][lesion].max() < 2.2 * brightest
        assert (made.images["ct"][lesion] > -600).mean() > 0.8
        assert all(lesion_["suv"] >= 3 and lesion_["radius"] >= 4 for lesion_ in made.truth["lesions"])


def test_domains_show_different_things():
    torso, head = (set(np.unique(body(0, domain).kind)) for domain in ("torso", "head-neck"))
    only_torso = {NAMES.index(name) for name in ("liver", "spleen", "kidney", "urine", "colon")}
    only_head = {NAMES.index(name) for name in ("grey matter", "cerebellum", "tongue", "parotid", "palatine tonsil")}
    assert only_torso <= torso
    assert only_head <= head
    assert not only_torso & head
    assert not only_head & torso


def test_wrong_names():
    with pytest.raises(UserError, match="domain torso or head-neck, got 'leg'"):
        body_subject(0, 0, 9.0, "leg")
    with pytest.raises(UserError, match="scanner A, B or both"):
        body_subject(0, 0, 9.0, "torso", "Z")
