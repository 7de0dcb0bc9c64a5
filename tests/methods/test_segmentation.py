"""The segmentation objective: each term against a reference or by hand, what is seen, the validation score."""

from dataclasses import replace

import pytest
import torch
from monai.losses.dice import DiceLoss
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.methods.segmentation import Segmentation, SegmentationConfig, soft_dice_loss
from medprism.methods.subsets import drawn_subsets
from medprism.models import NetworkConfig
from medprism.models.segmenter import Segmented, Segmenter, SegmenterConfig
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")
CLASSES = (0, 1, 4)
REGIONS = {"whole": [1, 4], "core": [4]}
SIZE = (8, 8, 8)


def objective(voxels=(1000, 100, 10), seed=0, names=NAMES, **config):
    return Segmentation(SegmentationConfig(**config), CLASSES, voxels, REGIONS, names, seed)


def labelled(present=((True, True, True), (False, True, True)), seed=0, size=SIZE):
    """A batch whose labels are random values of `CLASSES`."""
    draw = torch.Generator().manual_seed(seed)
    given = batch([list(row) for row in present], size=size)
    chosen = torch.randint(0, 3, (len(given), *size), generator=draw)
    return replace(given, label=torch.tensor(CLASSES)[chosen])


def channels(given):
    """The output channels of the label values, written out."""
    return torch.where(given.label == 4, 2, given.label)


class Fixed(torch.nn.Module):
    """Gives what it was made with, and keeps what it was asked."""

    def __init__(self, logits, x_h=None, owner=None, z=None):
        super().__init__()
        self.made, self.asked = Segmented(logits, x_h, owner, z), []

    def forward(self, images, present):
        self.asked.append(present)
        return self.made


def logits(levels=1, seed=1, subjects=2):
    draw = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(subjects, 3, *[8 // 2**k] * 3, generator=draw) for k in range(levels)]


def test_dice_is_monais():
    [given], label = logits(), channels(labelled())
    reference = DiceLoss(include_background=False, softmax=True, batch=True)
    expected = reference(given, F.one_hot(label, 3).movedim(-1, 1))
    torch.testing.assert_close(soft_dice_loss(given, label), expected)


def test_dice_of_sure_answers_is_one_minus_dice():
    label, guess = torch.zeros(1, 4, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    label[0, :2], guess[0, 1:3] = 1, 1  # 32 and 32 voxels, 16 of them the same: Dice 1/2
    sure = 100.0 * F.one_hot(guess, 3).movedim(-1, 1)
    assert float(soft_dice_loss(sure, label)) == pytest.approx(1 - (0.5 + 1) / 2)  # class 2: absent, not found
    assert float(soft_dice_loss(100.0 * F.one_hot(label, 3).movedim(-1, 1), label)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("balance", [True, False])
def test_terms_and_their_weights(balance):
    given, network = labelled(), Fixed(logits())
    losses = objective(dice=0.5, cross_entropy=2.0, balance=balance).losses(network, given, 0)
    weights = torch.tensor([1000.0, 100.0, 10.0]) ** -0.5 if balance else torch.ones(3)
    dice = soft_dice_loss(network.made.logits[0], channels(given))
    charged = F.cross_entropy(network.made.logits[0], channels(given), weights)  # its scale divides out
    assert losses.keys() == {"loss", "dice", "cross_entropy"}
    torch.testing.assert_close(losses["dice"], dice)
    torch.testing.assert_close(losses["cross_entropy"], charged)
    torch.testing.assert_close(losses["loss"], 0.5 * dice + 2 * charged)


@pytest.mark.parametrize("off", ["dice", "cross_entropy"])
def test_a_weight_of_zero_switches_a_term_off(off):
    losses = objective(**{off: 0.0}).losses(Fixed(logits()), labelled(), 0)
    [left] = {"dice", "cross_entropy"} - {off}
    assert losses.keys() == {"loss", left}
    assert torch.equal(losses["loss"], losses[left])


def test_a_coarser_level_counts_half_and_sees_the_middle_of_each_block():
    given, network = labelled(), Fixed(logits(3))
    losses = objective().losses(network, given, 0)
    label, terms = channels(given), objective()
    middles = [label, label[:, 1::2, 1::2, 1::2], label[:, 2::4, 2::4, 2::4]]
    assert [tuple(one.shape[1:]) for one in middles] == [(8, 8, 8), (4, 4, 4), (2, 2, 2)]
    for name in ("dice", "cross_entropy"):
        values = [terms.terms(made, own)[name] for made, own in zip(network.made.logits, middles, strict=True)]
        expected = (4 * values[0] + 2 * values[1] + values[2]) / 7
        torch.testing.assert_close(losses[name], expected)


def test_invariance_is_the_distance_to_the_mean_of_a_subjects_scans():
    x_h, owner = torch.randn(3, 4, 2, 2, 2), torch.tensor([0, 0, 1])
    losses = objective(invariance=0.25).losses(Fixed(logits(), x_h, owner), labelled(), 0)
    own = ((x_h[:2] - x_h[:2].mean(0)) ** 2).mean((1, 2, 3, 4))
    torch.testing.assert_close(losses["invariance"], (own[0] + own[1] + 0) / 3)
    rest = losses["dice"] + losses["cross_entropy"]
    torch.testing.assert_close(losses["loss"], rest + 0.25 * losses["invariance"])
    assert "invariance" not in objective(invariance=0.0).losses(Fixed(logits(), x_h, owner), labelled(), 0)


def test_each_sub_volume_is_seen_through_the_subset_drawn_for_it():
    given, network = labelled(), Fixed(logits())
    for epoch in range(5):
        objective(seed=7, full=0.3).losses(network, given, epoch)
        assert torch.equal(network.asked.pop(), drawn_subsets(given, epoch, NAMES, 7, 0.3))
    objective(full=1.0).losses(network, given, 0)
    assert torch.equal(network.asked.pop(), given.present)


def segmenter(**config):
    torch.manual_seed(0)
    shape = NetworkConfig(width=4, levels=3)
    return Segmenter(shape, SegmenterConfig(**config), 3, 3, (16, 16, 16))


@pytest.mark.parametrize("config", [{"deep_supervision": 1}, {"combine": "channels"}])
def test_absent_scans_change_neither_losses_nor_gradients(config):
    made = []
    for filling in (0.0, float("nan")):
        network, given = segmenter(**config), labelled(size=(16, 16, 16))
        given.images[~given.present] = filling
        losses = objective().losses(network, given, 0, backward=lambda loss: loss.backward())
        assert not any(value.requires_grad for value in losses.values())
        made.append([*losses.values(), *(p.grad for p in network.parameters() if p.grad is not None)])
    assert all(value.isfinite().all() for value in made[0])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_training_on_one_batch_learns_it():
    network, given, seen = segmenter(), labelled(size=(16, 16, 16)), []
    given.label = torch.where(given.images[:, 1] > 0.5, 4, 0)  # told by the scan that all have
    given.label[:, :4] = 1
    learner = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(15):
        learner.zero_grad()
        seen.append(objective(full=1.0).losses(network, given, 0, backward=lambda loss: loss.backward())["loss"])
        learner.step()
    assert seen[-1] < 0.7 * seen[0]


class Answers(torch.nn.Module):
    """Finds everything with t2w, the whole as one class with t1n alone, nothing with t2f alone."""

    def __init__(self, truth):
        super().__init__()
        self.truth, self.asked = truth, []

    def segment(self, images, present):
        assert present.shape == images.shape[:2]
        self.asked.append(tuple(present[0].tolist()))
        found = self.truth if self.asked[-1][1] else self.truth.clamp(max=1) if self.asked[-1][0] else 0 * self.truth
        return F.one_hot(found, 3).movedim(-1, 1).float()


def test_scores_are_dice_of_every_subset_and_region():
    """Over all crops of the subject together: a crop without the region does not count for itself."""
    given = labelled(((True, True, True), (True, True, True)))
    given.label[:] = 0
    given.label[0, :4], given.label[0, :1] = 1, 4  # 256 voxels, 64 of them the core; the other crop has none
    network = Answers(channels(given))
    scores = objective().scores(network, given)
    singles, pairs = [(1, 0, 0), (0, 1, 0), (0, 0, 1)], [(1, 1, 0), (1, 0, 1), (0, 1, 1)]
    assert network.asked == [tuple(map(bool, one)) for one in (*singles, *pairs, (1, 1, 1))]
    whole = [1, 1, 0, 1, 1, 1, 1]
    core = [0, 1, 0, 1, 0, 1, 1]
    assert scores.view(7, 2).tolist() == [list(row) for row in zip(whole, core, strict=True)]


def test_a_partly_right_answer_has_its_dice():
    given = labelled(((False, True, False),))
    given.label[:], truth = 0, torch.zeros(1, *SIZE, dtype=torch.int64)
    given.label[0, :4], truth[0, 2:6] = 4, 2  # half of it: 2 · 128 / (256 + 256)
    assert objective().scores(Answers(truth), given).tolist() == [0.5, 0.5]


def test_regions_that_a_subject_does_not_have_are_not_scored():
    given = labelled(((False, True, False),))
    given.label[given.label == 4] = 1
    assert objective().scores(Answers(channels(given)), given).tolist() == [1]
    given.label[:] = 0
    assert len(objective().scores(Answers(channels(given)), given)) == 0
    given.label = None
    assert len(objective().scores(Answers(None), given)) == 0


@pytest.mark.parametrize(
    "config", [{"dice": -1.0}, {"dice": 0.0, "cross_entropy": 0.0}, {"full": 1.5}, {"invariance": float("nan")}]
)
def test_objectives_that_cannot_be(config):
    with pytest.raises(UserError, match=r"expected .* for segmentation\."):
        SegmentationConfig(**config)
