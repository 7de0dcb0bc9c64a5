import time

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, label

from medprism.errors import UserError
from medprism.phantoms.anatomy import draw_anatomy, tissue
from medprism.phantoms.box import head_box
from medprism.phantoms.brain import LABELS, _rng, brain_subject
from medprism.phantoms.template import load_template
from medprism.phantoms.tumour import grow

HIGH, LOW = 0, 1  # persons of seed 0 with and without an enhancing tumour


@pytest.fixture(scope="module")
def high():
    return brain_subject(0, HIGH)


@pytest.fixture(scope="module")
def low():
    return brain_subject(0, LOW)


def healthy(brain, index):
    """(4, X, Y, Z) fractions of white matter, grey matter, CSF and vessels at the voxels' centres, 0 in the tumour."""
    anatomy = draw_anatomy(_rng(0, index, "anatomy"), load_template())
    tumour = grow(_rng(0, index, "tumour"), anatomy)
    found = tissue(anatomy, anatomy.to_template(tumour.before(head_box(3.0).centres())))
    away = (brain.images["t1n"] > 0) & ~binary_dilation(brain.label > 0, iterations=3)
    return found.fractions.reshape(4, *brain.label.shape) * away


def test_shape_types_and_place(high):
    assert set(high.images) == {"t1n", "t1c", "t2w", "t2f"}
    for image in high.images.values():
        assert image.shape == high.label.shape == (61, 73, 61)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() == 0
    assert high.label.dtype == np.uint8
    assert np.array_equal(high.affine[:3, :3], np.diag([3.0, 3.0, 3.0]))


def test_all_modalities_show_the_same_brain_in_one_piece(high, low):
    for brain in (high, low):
        masks = [image != 0 for image in brain.images.values()]
        assert all(np.array_equal(mask, masks[0]) for mask in masks)
        assert label(masks[0])[1] == 1
        assert 1000 < masks[0].sum() * 0.027 < 2500  # ml
        assert not masks[0][[0, -1]].any()


def test_same_arguments_same_bytes(high):
    again = brain_subject(0, HIGH)
    assert again.label.tobytes() == high.label.tobytes()
    assert all(again.images[name].tobytes() == high.images[name].tobytes() for name in high.images)
    assert again.truth == high.truth


def test_persons_differ(high, low):
    both = (high.images["t1n"] > 0) & (low.images["t1n"] > 0)
    assert not np.array_equal(high.images["t1n"] > 0, low.images["t1n"] > 0)
    assert np.corrcoef(high.images["t1n"][both], low.images["t1n"][both])[0, 1] < 0.9


def test_labels_and_volumes(high, low):
    volume = np.bincount(high.label.ravel(), minlength=4) * 0.027  # ml
    assert len(volume) == 4
    assert (volume[1:] > 0.2).all()
    assert 5 < volume[1:].sum() < 200
    volume = np.bincount(low.label.ravel(), minlength=4) * 0.027
    assert volume[LABELS["ET"]] == 0
    assert 5 < volume[1:].sum() < 200
    assert (high.truth["enhances"], low.truth["enhances"]) == (True, False)


def test_tumour_is_in_the_brain_and_mostly_one_piece(high, low):
    for brain in (high, low):
        assert (brain.images["t1n"][brain.label > 0] > 0).all()
        pieces, _ = label(brain.label > 0)
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.9 * sizes.sum()


def test_necrosis_lies_within_the_enhancing_rim(high):
    necrosis = high.label == LABELS["NCR"]
    around = high.label[binary_dilation(necrosis) & ~necrosis]
    assert (around == LABELS["ET"]).mean() > 0.6
    assert (around == LABELS["ED"]).mean() < 0.2


@pytest.mark.parametrize("scanner", ["A", "B"])
def test_contrast_is_in_the_order_that_radiologists_know(scanner):
    brain = brain_subject(0, HIGH, scanner=scanner)
    white, grey, csf = (fraction > 0.95 for fraction in healthy(brain, HIGH)[:3])
    regions = {"WM": white, "GM": grey, "CSF": csf} | {k: brain.label == v for k, v in LABELS.items() if v}
    assert min(region.sum() for region in regions.values()) > 50
    median = {(m, k): np.median(brain.images[m][region]) for m in brain.images for k, region in regions.items()}
    assert median["t1n", "WM"] > median["t1n", "GM"] > median["t1n", "CSF"]
    assert median["t2w", "CSF"] > median["t2w", "GM"] > median["t2w", "WM"]
    assert median["t2f", "CSF"] < 0.5 * median["t2f", "WM"]
    assert median["t2f", "ED"] > 1.1 * max(median["t2f", "GM"], median["t2f", "WM"])
    assert median["t1n", "ED"] < median["t1n", "WM"]
    assert median["t1c", "ET"] > 1.3 * median["t1n", "ET"]
    assert median["t1c", "ET"] > 1.2 * median["t1c", "WM"]
    assert median["t2w", "NCR"] > median["t2w", "WM"]


def test_scanner_changes_the_images_not_the_person(high):
    other = brain_subject(0, HIGH, scanner="B")
    assert np.array_equal(other.label, high.label)
    assert other.truth == high.truth
    mask = binary_erosion(high.images["t1n"] > 0, iterations=2)
    for name in high.images:
        correlation = np.corrcoef(high.images[name][mask], other.images[name][mask])[0, 1]
        assert 0.6 < correlation < 0.999


def test_spacing_changes_the_grid_not_the_person(high):
    coarse = brain_subject(0, HIGH, spacing=6.0)
    assert coarse.truth == high.truth
    volumes = [np.bincount(b.label.ravel(), minlength=4)[1:].sum() * s**3 for b, s in ((high, 3), (coarse, 6))]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.1)
    centres = [(np.argwhere(b.label > 0) @ b.affine[:3, :3].T + b.affine[:3, 3]).mean(0) for b in (high, coarse)]
    assert centres[1] == pytest.approx(centres[0], abs=1.5)  # mm


def test_one_image_is_not_a_table_look_up_of_another(high):
    """The best function of T1 alone leaves part of FLAIR unexplained, as in real scans."""
    mask = high.images["t1n"] > 0
    x, y = high.images["t1n"][mask], high.images["t2f"][mask]
    bins = np.digitize(x, np.quantile(x, np.linspace(0, 1, 65)[1:-1]))
    best = (np.bincount(bins, y) / np.bincount(bins))[bins]
    assert np.square(y - best).mean() > 0.15 * y.var()


def test_unknown_scanner():
    with pytest.raises(UserError, match="scanner"):
        brain_subject(0, 0, scanner="Z")


@pytest.mark.slow
@pytest.mark.parametrize(("spacing", "seconds"), [(3.0, 2.0), (1.0, 60.0)])
def test_time_on_one_core(spacing, seconds):
    load_template()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = []
        for index in range(2):
            start = time.process_time()
            brain = brain_subject(0, index, spacing)
            taken.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(taken) < seconds
    assert brain.label.shape == head_box(spacing).shape
