import numpy as np
import pytest

from medprism.errors import UserError
from medprism.inference.components import becomes, described, drop_small, voxel_mm3
from medprism.io import Grid

BRATS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}


def tumour(**counts):
    """So many voxels of NCR (1), ED (2) and ET (3), in pieces."""
    flat = np.zeros(1000, np.uint8)
    place = np.random.default_rng(0).permutation(1000)
    for label, name in enumerate(("NCR", "ED", "ET"), start=1):
        here, place = place[: counts.get(name, 0)], place[counts.get(name, 0) :]
        flat[here] = label
    return flat.reshape(10, 10, 10)


def counts(labels):
    return np.bincount(labels.ravel(), minlength=4).tolist()


def test_a_dropped_region_becomes_what_is_left_of_the_one_around_it():
    assert becomes("ET", BRATS) == 1
    assert becomes("TC", BRATS) == 2
    assert becomes("WT", BRATS) == 0
    assert becomes("lesion", {"lesion": [7]}) == 0
    assert becomes("a", {"a": [1], "all": [1, 2, 3]}) == 0  # two labels are left: which, nobody knows


@pytest.mark.parametrize(("voxels", "dropped"), [(499, True), (500, False), (501, False)])
def test_under_the_volume_not_at_it(voxels, dropped):
    labels = tumour(NCR=20, ED=30, ET=voxels)
    out = drop_small(labels, {"ET": 500}, BRATS, voxel_mm3=1.0)
    assert counts(out)[1:] == ([20 + voxels, 30, 0] if dropped else [20, 30, voxels])
    assert out.dtype == np.uint8
    assert counts(labels)[3] == voxels  # the given map is left alone


def test_volumes_are_in_mm3_on_every_grid():
    labels = tumour(ET=100)
    assert counts(drop_small(labels, {"ET": 500}, BRATS, voxel_mm3=8.0)) == counts(labels)
    assert counts(drop_small(labels, {"ET": 500}, BRATS, voxel_mm3=4.9))[3] == 0


def test_what_a_part_becomes_counts_for_the_whole():
    labels = tumour(NCR=5, ED=300, ET=50)
    for small in ({"TC": 60, "ET": 60}, {"ET": 60, "TC": 60}):
        assert counts(drop_small(labels, small, BRATS, voxel_mm3=1.0)) == [645, 0, 355, 0]
    assert counts(drop_small(labels, {"ET": 60, "TC": 55}, BRATS, voxel_mm3=1.0)) == [645, 55, 300, 0]
    assert counts(drop_small(labels, {"WT": 356}, BRATS, voxel_mm3=1.0)) == [1000, 0, 0, 0]


def test_nothing_to_drop_and_no_rule_change_nothing():
    labels = tumour(NCR=5)
    assert drop_small(labels, {"ET": 500}, BRATS, voxel_mm3=1.0) is labels
    assert drop_small(labels, {}, BRATS, voxel_mm3=1.0) is labels


def test_a_rule_that_means_nothing_is_refused():
    for small, message in (
        ({"NCR": 5}, "WT, TC, ET for small, got NCR"),
        ({"ET": 0}, "above 0 for small.ET, got 0"),
        ({"ET": float("nan")}, "above 0"),
    ):
        with pytest.raises(UserError, match=message):
            described(small, BRATS)
        with pytest.raises(UserError, match=message):
            drop_small(tumour(ET=3), small, BRATS, voxel_mm3=1.0)
    assert described({"ET": 500}, BRATS) == {"ET": {"LeastMm3": 500.0, "Becomes": 1}}


def test_the_volume_of_a_sheared_voxel():
    sheared = np.array([[2.0, 1, 0, 0], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    assert voxel_mm3(Grid((2, 2, 2), sheared)) == pytest.approx(24)
