import numpy as np
import pytest

from medprism.evaluation.detection import METRICS, detection, untouched
from medprism.evaluation.overlap import dice


def scan(*voxels, shape=(8, 8, 8)):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


LESION, OTHER = (2, 2, 2), (6, 6, 6)


def told(truth, output):
    return detection(truth, output, dice(truth, output), 0.5)


def means(scans):
    """Over the scans that have a value."""
    return {name: np.nanmean([told(*pair)[name] for pair in scans]) for name in METRICS}


def test_four_kinds_of_scans():
    hit, missed = (scan(LESION), scan(LESION, (2, 2, 3))), (scan(LESION), scan())
    clean, ghost = (scan(), scan()), (scan(), scan(OTHER))
    found = means([hit, missed, clean, clean, ghost])
    assert (found["tpr"], found["fnr"]) == (0.5, 0.5)
    assert (found["tnr"], found["fpr"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found["dice_minus"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["dice_paper"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert found["dice_tn0"] == pytest.approx((2 / 3) / 5)
    assert found["fpv_ml"] == pytest.approx(0.5 / 5)
    assert found["fnv_ml"] == pytest.approx((0 + 0.5) / 2)


# DICE, DICE-, TNR of every row of the paper's Tables 7 and 8 that has them, and of UNETR in its first version.
PUBLISHED = [
    (40.85, 55.79, 69.09), (44.34, 48.63, 91.82), (42.42, 60.67, 63.64), (46.31, 55.77, 82.73), (44.42, 57.80, 74.55),
    (48.20, 61.16, 77.27), (43.45, 62.60, 62.73), (44.06, 57.79, 73.64), (10.81, 23.14, 3.64),
]  # fmt: skip


@pytest.mark.parametrize(("with_false", "without", "tnr"), PUBLISHED)
def test_definitions_are_those_of_the_published_tables(with_false, without, tnr):
    positive, negative = 93, 110  # the only scans that all rates of the tables are shares of
    clean = round(tnr / 100 * negative)
    hit, ghost, none = (scan(LESION), scan(LESION, (2, 2, 3))), (scan(), scan(OTHER)), (scan(), scan())
    found = means([hit] * positive + [ghost] * (negative - clean) + [none] * clean)
    assert 100 * found["tnr"] == pytest.approx(tnr, abs=0.01)
    assert found["dice_paper"] / found["dice_minus"] == pytest.approx(with_false / without, abs=3e-4)


def test_components_that_touch_count_as_found():
    big = scan((slice(1, 4), 2, 2), OTHER)
    assert untouched(big, scan((1, 2, 2))) == 1
    assert untouched(big, scan()) == 4
    assert untouched(scan(), big) == 0
    assert untouched(big, big) == 0


def test_edges_connect_and_corners_do_not():
    edge, corner = scan((2, 2, 2), (3, 3, 2)), scan((2, 2, 2), (3, 3, 3))
    assert untouched(edge, scan((2, 2, 2))) == 0
    assert untouched(corner, scan((2, 2, 2))) == 1


def test_touching_outside_the_box_of_a_mask_is_no_touching():
    assert untouched(scan((0, 0, 0), (2, 2, 2)), scan((7, 7, 7))) == 2
