from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medprism.data.batch import UNLABELLED, collate
from medprism.data.patches import PatchDataset
from medprism.data.prepare import prepare
from medprism.data.sampler import EpochSampler
from medprism.errors import UserError
from tests.data.scans import write_cohort

AFFINE = np.array([[1.5, 0.1, 0, -6], [-0.1, 0.9, 0.2, 12], [0, -0.2, 2.5, 7], [0, 0, 0, 1.0]])


@dataclass
class Ramp:
    """A subject whose three images are the world coordinates of each voxel, so that a crop says where it is from."""

    subject: str
    shape: tuple = (20, 18, 12)
    labelled: bool = True
    present: tuple = (True, True, True)
    class_label: int | None = None
    affine: np.ndarray = field(default_factory=AFFINE.copy)
    background = np.array([-1, -2, -3], np.float32)

    @property
    def person(self):
        return self.subject[:3]

    @property
    def world(self):
        voxels = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"))
        return np.einsum("ij,jxyz->ixyz", AFFINE[:3, :3], voxels) + AFFINE[:3, 3, None, None, None]

    @property
    def centres(self):
        return np.argwhere(self.world[0] > 0)

    def cut(self, volume, start, size):
        window = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        return volume[(..., *window)]

    def images(self, start, size):
        return self.cut(self.world, start, size).astype(np.float32)

    def foreground(self, start, size):
        return self.cut(self.world, start, size) > 0

    def label(self, start, size):
        return self.cut(np.abs(self.world).sum(0).astype(np.uint8), start, size) if self.labelled else None


def entries():
    return [Ramp("sub-a"), Ramp("sub-b", (16, 16, 16), labelled=False, class_label=1), Ramp("sub-c")]


def stream(workers=0, *, epoch=0, seed=0, augment=True):
    dataset = PatchDataset(entries(), (8, 8, 6), patches_per_subject=4, seed=seed, augment=augment)
    sampler = EpochSampler(len(dataset), 4, seed=seed)
    sampler.set_epoch(epoch)
    return list(DataLoader(dataset, 4, sampler=sampler, num_workers=workers, collate_fn=collate))


def same(a, b):
    pairs = [(getattr(x, name), getattr(y, name)) for x, y in zip(a, b, strict=True) for name in vars(x)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def test_a_crop_is_where_its_affine_says_after_any_turn():
    dataset = PatchDataset(entries(), (8, 8, 6), patches_per_subject=40)
    directions = set()
    for index in range(len(dataset)):
        sample = dataset[3, index]
        voxels = torch.stack(torch.meshgrid(*map(torch.arange, (8, 8, 6)), indexing="ij")).double()
        place = torch.einsum("ij,jxyz->ixyz", sample.affine[:3, :3], voxels) + sample.affine[:3, 3, None, None, None]
        assert torch.allclose(sample.images.double(), place, atol=1e-4)
        # Foreground and label are turned with the images (away from where rounding decides them).
        assert torch.equal(sample.foreground[place.abs() > 1e-3], (place > 0)[place.abs() > 1e-3])
        if sample.label is not None:
            level = place.abs().sum(0)
            clear = (level % 1 - 0.5).abs() < 0.49
            assert torch.equal(sample.label[clear], level.long()[clear] % 256)
        directions.add(
            tuple(torch.linalg.solve(torch.from_numpy(AFFINE), sample.affine)[:3, :3].round().int().ravel().tolist())
        )
    assert len(directions) > 8  # flips along every axis and turns did happen


def test_without_augmentation_nothing_is_turned():
    dataset = PatchDataset(entries(), (8, 8, 6), augment=False)
    assert all(np.array_equal(dataset[1, i].affine[:3, :3], AFFINE[:3, :3]) for i in range(len(dataset)))


def test_flips_and_turns_have_probability_one_fifth():
    dataset = PatchDataset(entries(), (8, 8, 6))
    turns = [dataset._turn(epoch, index) for epoch in range(500) for index in range(len(dataset))]
    rates = np.mean([[*turn.flips, turn.quarters > 0] for turn in turns], axis=0)
    assert np.abs(rates - 0.2).max() < 0.03  # 4 standard deviations of 3000 draws
    assert np.bincount([turn.quarters for turn in turns])[1:].min() > 100


def test_a_patch_that_is_not_square_is_flipped_but_not_turned():
    dataset = PatchDataset(entries(), (8, 6, 6), patches_per_subject=40)
    assert all(dataset[0, index].images.shape == (3, 8, 6, 6) for index in range(len(dataset)))
    assert all(dataset._turn(0, index).quarters == 0 for index in range(len(dataset)))
    assert any(any(dataset._turn(0, index).flips) for index in range(len(dataset)))


def test_two_workers_give_the_stream_of_none():
    assert same(stream(0, epoch=2), stream(2, epoch=2))


def test_workers_that_stay_alive_follow_the_epoch():
    dataset = PatchDataset(entries(), (8, 8, 6), patches_per_subject=4)
    sampler = EpochSampler(len(dataset), 4, seed=0)
    loader = DataLoader(dataset, 4, sampler=sampler, num_workers=1, persistent_workers=True, collate_fn=collate)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        assert same(list(loader), stream(epoch=epoch))


def test_the_stream_changes_with_seed_and_epoch_only():
    assert same(stream(), stream())
    assert not same(stream(), stream(epoch=1))
    assert not same(stream(), stream(seed=1))


def test_a_sample_does_not_depend_on_the_order_of_calls():
    dataset = PatchDataset(entries(), (8, 8, 6), patches_per_subject=4)
    forth = [dataset[5, index] for index in range(len(dataset))]
    back = [dataset[5, index] for index in reversed(range(len(dataset)))][::-1]
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.affine, b.affine) for a, b in zip(forth, back, strict=True)
    )


def test_crops_of_one_subject_and_epoch_lie_in_different_places():
    dataset = PatchDataset([Ramp("sub-a", (10, 9, 6))], (8, 8, 6), patches_per_subject=6, augment=False)
    for epoch in range(5):
        places = {tuple(dataset[epoch, index].affine[:3, 3].tolist()) for index in range(6)}
        assert len(places) == 6  # all that there are: 3 × 2 × 1


def test_a_volume_of_exactly_the_patch_size_gives_itself():
    entry = Ramp("sub-a", (8, 8, 6))
    dataset = PatchDataset([entry], (8, 8, 6), augment=False)
    assert all(np.array_equal(dataset[e, i].images, entry.world.astype(np.float32)) for e in range(3) for i in range(2))


def test_crops_are_centred_on_foreground_where_the_border_allows():
    entry = Ramp("sub-a", (40, 18, 12))
    dataset = PatchDataset([entry], (4, 4, 4), patches_per_subject=100, augment=False)
    centres = [dataset[0, index].foreground[0, 2, 2, 2].item() for index in range(100)]
    inside = [(dataset[0, index].foreground[0].any().item()) for index in range(100)]
    assert all(inside)
    assert np.mean(centres) > 0.9


def test_crops_of_a_prepared_cohort_are_what_the_volumes_hold(tmp_path):
    cache = prepare(write_cohort(tmp_path / "data"), out=tmp_path / "cache")
    dataset = PatchDataset(cache.subjects(), (12, 12, 8), patches_per_subject=3, seed=1)
    loader = DataLoader(dataset, 3, sampler=EpochSampler(len(dataset), 3, seed=1), num_workers=2, collate_fn=collate)
    whole = {entry.subject: entry for entry in cache.subjects()}
    for batch in loader:
        assert torch.equal(batch.present, torch.tensor([whole[subject].present for subject in batch.subject]))
        for k, subject in enumerate(batch.subject):
            entry = whole[subject]
            world = batch.affine[k].numpy() @ np.vstack([np.indices((12, 12, 8)).reshape(3, -1), np.ones((1, 1152))])
            x, y, z = np.rint(np.linalg.solve(entry.affine, world)[:3]).astype(int)
            assert np.array_equal(batch.images[k].numpy().reshape(3, -1), entry.images()[:, x, y, z])
            assert np.array_equal(batch.foreground[k].numpy().reshape(3, -1), entry.foreground()[:, x, y, z])
            label = np.full(x.shape, UNLABELLED) if entry.label() is None else entry.label()[x, y, z]
            assert batch.label is None or np.array_equal(batch.label[k].numpy().ravel(), label)


def test_absent_label_and_class_are_none():
    dataset = PatchDataset(entries(), (8, 8, 6), patches_per_subject=1)
    assert dataset[0].label.dtype == torch.int64
    assert dataset[1].label is None
    assert (dataset[0].class_label, dataset[1].class_label) == (None, 1)


def test_iteration_ends():
    assert len(list(PatchDataset(entries(), (8, 8, 6)))) == 6


def test_a_volume_smaller_than_the_patch_lies_in_its_middle_in_air():
    dataset = PatchDataset([Ramp("sub-a", (6, 18, 5))], (8, 8, 6), patches_per_subject=10)
    for index in range(10):
        sample = dataset[0, index]
        voxels = torch.stack(torch.meshgrid(*map(torch.arange, (8, 8, 6)), indexing="ij")).double()
        place = torch.einsum("ij,jxyz->ixyz", sample.affine[:3, :3], voxels) + sample.affine[:3, 3, None, None, None]
        inverse = torch.from_numpy(np.linalg.inv(AFFINE))
        original = torch.einsum("ij,jxyz->ixyz", inverse[:3, :3], place) + inverse[:3, 3, None, None, None]
        limits = torch.tensor([6, 18, 5]).view(3, 1, 1, 1)
        within = ((original > -0.5) & (original < limits - 0.5)).all(dim=0)
        assert within.sum() == 6 * 8 * 5
        assert torch.allclose(sample.images[:, within].double(), place[:, within], atol=1e-4)
        for modality, air in enumerate(Ramp.background):
            assert (sample.images[modality, ~within] == air).all()
        assert not sample.foreground[:, ~within].any()
        assert not sample.label[~within].any()
        assert sample.foreground.any()


def test_a_volume_less_than_half_the_patch_is_refused_by_name():
    with pytest.raises(UserError, match=r"half the patch size of 8×8×26 voxels, got 20×18×12 for sub-a; lower the pa"):
        PatchDataset(entries(), (8, 8, 26))


def test_no_subject_is_refused():
    with pytest.raises(UserError, match="at least one prepared subject"):
        PatchDataset([], (8, 8, 8))


class Spotted(Ramp):
    """A subject with one voxel of class 2 in a corner and a slab of class 7; its images tell each voxel's place."""

    def label(self, start=(0, 0, 0), size=None):
        if not self.labelled:
            return None
        label = np.zeros(self.shape, np.uint8)
        label[10:12, :, 5], label[0, 17, 11] = 7, 2
        return self.cut(label, start, size or self.shape)


def test_crops_on_labels_are_centred_on_every_class_as_often_where_the_border_allows():
    entry = Spotted("sub-a")
    dataset = PatchDataset([entry], (8, 8, 6), patches_per_subject=100, augment=False, on_label=1.0)
    found = []
    for index in range(100):
        sample = dataset[0, index]
        x, y, z = np.rint(np.linalg.solve(AFFINE, sample.affine.numpy())[:3, 3]).astype(int)
        assert all(0 <= s <= n - p for s, n, p in zip((x, y, z), entry.shape, (8, 8, 6), strict=True))
        assert np.array_equal(sample.label, entry.label((x, y, z), (8, 8, 6)))
        corner = (x, y, z) == (0, 10, 6)  # as near to class 2 as the border allows
        assert sample.label[(0, 7, 5) if corner else (4, 4, 3)] == (2 if corner else 7)
        found.append(2 if corner else 7)
    assert 30 < found.count(2) < 70


def test_a_share_of_the_crops_is_on_labels():
    entries = [Spotted("sub-a"), Spotted("sub-b", labelled=False)]
    places = []
    for share in (0.0, 0.5, 1.0):
        dataset = PatchDataset(entries, (8, 8, 6), patches_per_subject=100, augment=False, on_label=share)
        places.append([tuple(dataset[0, index].affine[:3, 3].tolist()) for index in range(200)])
    random, half, always = places
    assert always[100:] == random[100:]  # without a label they are as without the option
    assert 30 < sum(a == b for a, b in zip(half[:100], always[:100], strict=True)) < 70
    assert sum(a == b for a, b in zip(always[:100], random[:100], strict=True)) < 20
    assert all(a in (b, c) for a, b, c in zip(half, random, always, strict=True))


def test_crops_on_labels_depend_on_seed_epoch_and_index_alone():
    def dataset(seed=0):
        return PatchDataset([Spotted("sub-a"), Spotted("sub-b")], (8, 8, 6), seed=seed, on_label=0.8)

    forth = [dataset()[5, index] for index in range(4)]
    own = dataset()
    back = [own[5, index] for index in (3, 2, 1, 0)][::-1]
    assert same(forth, back)
    assert not same(forth, [dataset()[6, index] for index in range(4)])
    assert not same(forth, [dataset(1)[5, index] for index in range(4)])


def test_a_subject_whose_label_is_empty_gives_crops_of_the_foreground():
    entry = Spotted("sub-a")
    entry.label = lambda start=(0, 0, 0), size=None: np.zeros(size or entry.shape, np.uint8)
    one = PatchDataset([entry], (8, 8, 6), on_label=1.0)
    assert same([one[0, 0], one[0, 1]], [PatchDataset([entry], (8, 8, 6))[0, k] for k in range(2)])
