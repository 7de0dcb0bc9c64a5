import numpy as np

from medprism.phantoms.box import sample
from medprism.phantoms.template import load_template


def at(*points):
    template = load_template()
    return sample(template.maps, template.box, np.asarray(points, np.float32))


def test_known_places_have_their_tissue():
    white, csf, inside, mixed = at((26, -20, 32), (-11, -16, 22), (11, -18, 7), (0, 0, 95))
    assert white[0] > 0.9  # centrum semiovale
    assert csf[1] > 0.5  # left lateral ventricle
    assert mixed[2] == 1  # right thalamus
    assert inside[0] > 0.9
    assert inside[3] < 0.1  # above the head
    assert csf[3] == 1


def test_white_matter_reaches_the_ventricles():
    """No sheet of grey matter between the body of the ventricle and the corona radiata."""
    x = np.arange(12, 30, 0.5)
    white, csf, _, _ = at(*[(v, -8, 24) for v in x])
    border = int(np.flatnonzero(csf < 0.5)[0])
    assert white[border + 4] > 0.5


def test_the_middle_of_the_brain_has_no_hole():
    _, _, inside, _ = at((0, -36, 4), (0, -40, -4), (0, -8, -4))
    assert (inside > 0.9).all()


def test_iron_is_in_the_pallidum_and_not_in_the_cortex():
    template = load_template()
    iron = sample(
        template.iron[None], template.coarse, np.asarray([(19, -5, -1), (-19, -5, -1), (40, -70, 30)], np.float32)
    )
    assert (iron[0, :2] > 10).all()
    assert iron[0, 2] == 0
