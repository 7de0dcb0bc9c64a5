import numpy as np
import pytest
from scipy import ndimage

from medprism.data.recipe import Recipe
from medprism.data.volume import assemble, label_on
from medprism.errors import UserError
from medprism.io.nifti import new_scan
from tests.data.scans import body, head

MRI = ("t1n", "t1c", "t2w")


def test_scans_on_one_grid_are_only_cropped_and_normalised():
    scans = {"t1n": head(seed=1), "t2w": head(seed=2)}
    volume = assemble(scans, Recipe.of(MRI, margin=2))
    mask = scans["t1n"].array != 0
    where = [np.nonzero(mask.any(tuple({0, 1, 2} - {axis})))[0] for axis in range(3)]
    window = tuple(slice(found[0] - 2, found[-1] + 3) for found in where)
    assert volume.images.shape[1:] == mask[window].shape
    assert np.allclose(volume.grid.affine[:3, 3], [s.start for s in window])
    for channel, modality in ((0, "t1n"), (2, "t2w")):
        array = scans[modality].array.astype(np.float64)
        # Closed form: z-score over the foreground only.
        expected = np.clip((array - array[mask].mean()) / array[mask].std(), -5, 5)[window]
        assert np.allclose(volume.images[channel], expected, atol=1e-5)
        assert np.array_equal(volume.foreground[channel], mask[window])
        assert volume.background[channel] == pytest.approx(-array[mask].mean() / array[mask].std(), rel=1e-5)
        assert np.allclose(volume.images[channel][~mask[window]], volume.background[channel])
    assert volume.present.tolist() == [True, False, True]
    assert set(volume.scales) == {"t1n", "t2w"}


def test_what_is_absent_is_zero_and_changes_nothing():
    both, one = (
        assemble(s, Recipe.of(MRI)) for s in ({"t1n": head(seed=1), "t2w": head(seed=2)}, {"t1n": head(seed=1)})
    )
    assert np.array_equal(both.images[0], one.images[0])
    for channel in (1, 2):
        assert not one.images[channel].any()
        assert not one.foreground[channel].any()
        assert one.background[channel] == 0


def test_the_order_of_the_keys_does_not_matter():
    scans = {"t1n": head(seed=1), "t2w": head((15, 17, 14), seed=2, spacing=(2, 2, 2), origin=(0.5, 0.5, 0.5))}
    forth, back = (assemble(s, Recipe.of(MRI)) for s in (scans, dict(reversed(scans.items()))))
    assert np.array_equal(forth.images, back.images)
    assert forth.grid.shape == back.grid.shape


def test_other_grids_are_resampled_to_the_reference():
    fine, coarse = head(seed=1), head((16, 18, 15), seed=1, spacing=(2, 2, 2))
    volume = assemble({"t1n": fine, "t2w": coarse}, Recipe.of(MRI))
    inner = ndimage.binary_erosion(volume.foreground[0], iterations=3)
    # The same field seen by both: after its own z-score, the coarse scan agrees with the fine one.
    assert np.corrcoef(volume.images[0][inner], volume.images[2][inner])[0, 1] > 0.98
    assert np.allclose(volume.grid.spacing, 1)
    swapped = assemble({"t1n": fine, "t2w": coarse}, Recipe.of(MRI, reference="t2w"))
    assert np.allclose(swapped.grid.spacing, 2)


def test_a_spacing_replaces_that_of_the_reference():
    volume = assemble({"t1n": head()}, Recipe.of(MRI, spacing=(2, 2, 3)))
    assert np.allclose(volume.grid.spacing, (2, 2, 3))
    centre = np.argwhere(volume.foreground[0]).mean(axis=0)
    assert np.allclose(volume.grid.world(centre), (15, 17, 14), atol=0.3)


def test_fields_of_view_are_cut_to_the_common_one():
    # The MR sees a box of the CT, as in the soft-tissue sarcoma scans: x from 6 to 20, y from 5 to 30, z from 4 to 24.
    ct, mr = body(), head((15, 26, 21), seed=1, origin=(6, 5, 4))
    volume = assemble({"ct": ct, "t1n": mr}, Recipe.of(("ct", "t1n"), margin=30))
    assert volume.grid.shape == (15, 26, 21)
    assert np.allclose(volume.grid.affine[:3, 3], (6, 5, 4))
    inside_out = assemble({"ct": ct, "t1n": mr}, Recipe.of(("ct", "t1n"), reference="t1n", margin=30))
    assert inside_out.grid.shape == (15, 26, 21)
    assert np.array_equal(inside_out.images, volume.images)


def test_beyond_a_field_of_view_there_is_air_and_no_foreground():
    straight, turned = body(), head((26, 30, 28), seed=1, turn=0.3, origin=(8, -2, 0))
    volume = assemble({"ct": straight, "t1n": turned}, Recipe.of(("ct", "t1n")))
    voxels = np.moveaxis(np.indices(volume.grid.shape), 0, -1)
    found = turned.grid.voxel(volume.grid.world(voxels))
    beyond = ((found < -0.51) | (found > np.array(turned.grid.shape) - 0.49)).any(axis=-1)
    assert beyond.any()
    assert np.allclose(volume.images[1][beyond], volume.background[1])
    assert not volume.foreground[1][beyond].any()


def test_ct_below_air_is_air():
    ct = body()
    holed = new_scan(np.where(ct.array == -1000, np.float32(-3024), ct.array), ct.grid)
    options = {"spacing": (2, 2, 2)}  # blurred: −3024 would bleed into the skin
    plain, strange = (assemble({"ct": scan}, Recipe.of(("ct",), **options)) for scan in (ct, holed))
    assert np.abs(plain.images - strange.images).max() < 24 / 500
    assert plain.background[0] == -2


def test_labels_follow_by_nearest_voxel_without_new_values():
    scan = head(seed=1)
    stored = np.zeros(scan.array.shape, np.uint8)
    stored[10:16, 12:20, 10:16], stored[14:18, 16:19, 12:15] = 1, 4
    volume = assemble({"t1n": scan}, Recipe.of(MRI))
    label = label_on(volume.grid, new_scan(stored, scan.grid))
    assert label.dtype == np.uint8
    assert [(label == value).sum() for value in (1, 4)] == [(stored == value).sum() for value in (1, 4)]
    centre = volume.grid.world(np.argwhere(label == 4).mean(axis=0))
    assert np.allclose(centre, scan.grid.world(np.argwhere(stored == 4).mean(axis=0)))
    coarse = assemble({"t1n": scan}, Recipe.of(MRI, spacing=(2.3, 2.3, 2.3)))
    assert set(np.unique(label_on(coarse.grid, new_scan(stored, scan.grid)))) <= {0, 1, 4}


def test_a_label_elsewhere_is_refused():
    scan = head()
    away = new_scan(np.ones(scan.array.shape, np.uint8), scan.grid.crop((400, 0, 0), scan.grid.shape))
    with pytest.raises(UserError, match=r"the label.*in one world space"):
        label_on(scan.grid, away)


def test_scans_that_are_apart_are_refused_with_their_distance():
    with pytest.raises(UserError, match=r"t1n and t2w in one world space, got centres 80 mm apart"):
        assemble(
            {"t1n": head(), "t2w": new_scan(head().array, head().grid.crop((80, 0, 0), (30, 34, 28)))}, Recipe.of(MRI)
        )


def test_pairs_that_overlap_but_have_nothing_in_common_are_refused():
    wide, left, right = head((60, 34, 28)), head((14, 34, 28)), head((14, 34, 28), origin=(15, 0, 0))
    with pytest.raises(UserError, match=r"common field of view, got none for t1n and t1c and t2w"):
        assemble({"t1n": wide, "t1c": left, "t2w": right}, Recipe.of(MRI))


def test_scans_without_content_are_refused():
    flat = new_scan(np.full((30, 34, 28), 7, np.float32), head().grid)
    with pytest.raises(UserError, match="got 7 in every voxel"):
        assemble({"t1n": flat}, Recipe.of(MRI))
    with pytest.raises(UserError, match="scans among t1n, t1c, t2w, got none"):
        assemble({}, Recipe.of(MRI))
    with pytest.raises(UserError, match="scans among t1n, t1c, t2w, got ct"):
        assemble({"ct": body()}, Recipe.of(MRI))
    empty = new_scan(np.where(body().array > -900, np.float32(-500), np.float32(-1000)), head().grid)
    with pytest.raises(UserError, match="foreground in ct"):
        assemble({"ct": empty}, Recipe.of(("ct",)))
