"""ACN's objective: each term by hand, who is moved by what, what is seen, subjects that lack scans, the scores."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.methods.acn import ACNLoss, ACNLossConfig, consistency_losses, sigmoid_dice_loss
from medprism.methods.adversary import entropy_map
from medprism.methods.alignment import Alignment, AlignmentConfig
from medprism.methods.segmentation import Segmentation, SegmentationConfig
from medprism.methods.subsets import all_subsets, drawn_subsets
from medprism.models.acn import ACN, ACNConfig
from medprism.models.modality_encoder import EncoderConfig
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")
CLASSES = (0, 1, 4)
REGIONS = {"whole": [1, 4], "core": [4]}
ALL = (True, True, True)
EVERYONE = torch.tensor([True, True])


def network(given=(), encoder="none", width=4, side=16):
    torch.manual_seed(0)
    return ACN(ACNConfig(width, given), EncoderConfig(encoder), 3, 3, (side,) * 3, NAMES)


def objective(net, anchor="none", seed=3, **config):
    torch.manual_seed(1)
    task = Segmentation(SegmentationConfig(), CLASSES, (9, 9, 9), REGIONS, NAMES, seed)
    alignment = None if anchor == "none" else Alignment(AlignmentConfig(anchor, "t2w"), NAMES)
    return ACNLoss(ACNLossConfig(**config), task, alignment, net)


def labelled(present=(ALL, (False, True, True)), side=16, absent=0.0):
    given = batch([list(row) for row in present], size=(side,) * 3, absent=absent)
    chosen = torch.randint(0, 3, (len(given), *(side,) * 3), generator=torch.Generator().manual_seed(5))
    return replace(given, label=torch.tensor(CLASSES)[chosen])


def logits(seed=0):
    made = 2 * torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    made[:, 0] = 0
    return made


def moved(module):
    """Names of the parameters with a gradient, which is then forgotten."""
    found = {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}
    module.zero_grad(set_to_none=True)
    return found


def test_dice_by_hand():
    """64 voxels, 32 of class 1, none of class 2, which costs 1; half of what is found is right."""
    label, given = torch.zeros(1, 4, 4, 4, dtype=torch.int64), torch.zeros(1, 3, 4, 4, 4)
    label[0, :2] = 1
    given[:, 1:] = -200
    given[0, 1, 1:3] = 200
    one = torch.tensor([True])
    assert float(sigmoid_dice_loss(given, label, one)) == pytest.approx((1 - 2 * 16 / 64) + 1)
    given[:, 1] = 0  # 1/2 everywhere: 2 · 16 / (16 + 32)
    assert float(sigmoid_dice_loss(given, label, one)) == pytest.approx((1 - 32 / 48) + 1)


def test_dice_is_over_the_batch_and_the_sub_volumes_that_count():
    given, label = logits(), torch.randint(0, 3, (2, 4, 4, 4))
    p, y = given.sigmoid(), F.one_hot(label, 3).movedim(-1, 1)
    expected = sum(1 - 2 * (p[:, k] * y[:, k]).sum() / ((p[:, k] ** 2).sum() + y[:, k].sum()) for k in (1, 2))
    torch.testing.assert_close(sigmoid_dice_loss(given, label, EVERYONE), expected)
    second = sigmoid_dice_loss(given, label, torch.tensor([False, True]))
    torch.testing.assert_close(second, sigmoid_dice_loss(given[1:], label[1:], torch.tensor([True])))
    given.requires_grad_()
    nobody = sigmoid_dice_loss(given, label, torch.tensor([False, False]))
    nobody.backward()
    assert float(nobody.detach()) == 0
    assert not given.grad.any()


def test_consistency_by_hand():
    one, other = logits(0), logits(1)
    expected = [((a[1:].sigmoid() - b[1:].sigmoid()) ** 2).sum() / 64 for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(consistency_losses(one, other), torch.stack(expected))
    assert consistency_losses(one, one).tolist() == [0, 0]


def test_the_consistency_rises():
    config = ACNLossConfig()
    published = {0: 0.0673795, 10: 2.8650480, 19: 9.8757780, 20: 10.0, 299: 10.0}
    assert {epoch: config.consistency_at(epoch) for epoch in published} == pytest.approx(published)
    assert ACNLossConfig(ramp=4).consistency_at(2) == config.consistency_at(10)
    assert ACNLossConfig(ramp=0).consistency_at(0) == 10


@pytest.mark.parametrize("epoch", [0, 20])
def test_terms_and_their_weights(epoch):
    net, given = network(encoder="shared"), labelled()
    held = objective(net, "weighted")
    losses = held.losses(net, given, epoch)
    weights = {
        "dice_full": 0.2,
        "dice_incomplete": 0.8,
        "consistency": [0.0673795, 10.0][epoch > 0],
        "mutual_information": 0.5,
        "entropy_adversarial": 0.001,
        "feature_adversarial": 0.0002,
        "entropy_discriminator": 1.0,
        "feature_discriminator": 1.0,
        "alignment": 0.125,
    }
    assert losses.keys() == {"loss", *weights}
    expected = sum(weights[name] * losses[name] for name in weights)
    torch.testing.assert_close(losses["loss"], expected)

    subset = drawn_subsets(given, epoch, NAMES, 3)
    with torch.no_grad():
        paths = net(given.images, given.present, subset, held.kept(given, epoch, net.channels))
        label = torch.where(given.label == 4, 2, given.label)
        told = held.entropy.told_apart(entropy_map(paths.full), entropy_map(paths.incomplete))
        values = {
            "dice_full": sigmoid_dice_loss(paths.full, label, EVERYONE),
            "dice_incomplete": sigmoid_dice_loss(paths.incomplete, label, EVERYONE),
            "consistency": consistency_losses(paths.full, paths.incomplete).mean(),
            "mutual_information": held.information(paths.incomplete_z, paths.full_z).mean(),
            "entropy_adversarial": held.entropy.fooled(entropy_map(paths.incomplete)).mean(),
            "feature_adversarial": held.feature.fooled(paths.incomplete_z).mean(),
            "entropy_discriminator": torch.cat(told).mean(),
            "feature_discriminator": torch.cat(held.feature.told_apart(paths.full_z, paths.incomplete_z)).mean(),
            "alignment": held.alignment(net.encoder(given.images, given.present), given.present),
        }
    for name, value in values.items():
        torch.testing.assert_close(losses[name].detach(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ({"consistency": 0.0}, {"consistency"}),
        ({"information": 0.0}, {"mutual_information"}),
        ({"mutual_information": "none"}, {"mutual_information"}),
        ({"entropy_adversarial": 0.0}, {"entropy_adversarial", "entropy_discriminator"}),
        ({"feature_adversarial": 0.0}, {"feature_adversarial", "feature_discriminator"}),
    ],
)
def test_terms_that_are_off(off, gone):
    net, given = network(side=8), labelled(side=8)
    assert objective(net).losses(net, given, 0).keys() - objective(net, **off).losses(net, given, 0).keys() == gone


def test_each_term_moves_what_it_is_for_and_nothing_else():
    net = network(encoder="shared")
    held, given = objective(net, "weighted"), labelled()
    losses = held.losses(net, given, 0)
    paths = {
        "dice_full": {"encoder", "full"},
        "dice_incomplete": {"incomplete"},
        "consistency": {"encoder", "full", "incomplete"},
        "mutual_information": {"incomplete"},
        "entropy_adversarial": {"incomplete"},
        "feature_adversarial": {"incomplete"},
        "entropy_discriminator": set(),
        "feature_discriminator": set(),
        "alignment": {"encoder"},
    }
    own = {
        "mutual_information": {"information"},
        "entropy_discriminator": {"entropy"},
        "feature_discriminator": {"feature"},
        "alignment": {"alignment"},
    }
    assert losses.keys() == {"loss", *paths}
    for name, parts in paths.items():
        losses[name].backward(retain_graph=True)
        assert {parameter.split(".")[0] for parameter in moved(net)} == parts, name
        assert {parameter.split(".")[0] for parameter in moved(held)} == own.get(name, set()), name
    losses["loss"].backward()
    assert moved(net) == {name for name, _ in net.named_parameters()}
    assert moved(held) == {name for name, _ in held.named_parameters()}


def test_the_release_asks_the_incomplete_path_for_itself():
    values = {}
    for kind in ("correct", "as_released"):
        net, given = network(), labelled()
        held = objective(net, mutual_information=kind)
        for shift in (0.0, 1.0):
            with torch.no_grad():
                net.full.blocks[-1][-1].conv2.bias.fill_(shift)  # moves the full path's bottleneck alone
            values[kind, shift] = held.losses(net, given, 0)["mutual_information"]
    assert values["as_released", 0.0] == values["as_released", 1.0]
    assert values["correct", 0.0] != values["correct", 1.0]
    assert values["correct", 0.0] != values["as_released", 0.0]


@pytest.mark.parametrize("given", [(), ("t2w", "t2f")])
@pytest.mark.parametrize("encoder", ["none", "shared", "joint"])
def test_absent_scans_change_neither_losses_nor_gradients(given, encoder):
    made, anchor = [], "none" if encoder == "none" else "weighted"
    for filling in (0.0, float("nan")):
        net, lacking = network(given, encoder, side=8), labelled(((True, True, False), (False, True, True)), 8, filling)
        held = objective(net, anchor)
        losses = held.losses(net, lacking, 0, backward=lambda loss: loss.backward())
        assert not any(value.requires_grad for value in losses.values())
        made.append([*losses.values(), *(p.grad for p in (*net.parameters(), *held.parameters()))])
    assert all(value is not None and value.isfinite().all() for value in made[0])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


class Recorder(torch.nn.Module):
    """A network that keeps what it was asked."""

    def __init__(self, net):
        super().__init__()
        self.net, self.config, self.asked = net, net.config, []
        self.channels, self.only, self.serves = net.channels, net.only, net.serves

    def forward(self, images, present, given, kept):
        self.asked.append((present, given))
        return self.net(images, present, given, kept)


def test_the_full_path_sees_what_there_is_and_the_other_what_the_task_drew():
    net, lacking = Recorder(network(side=8)), labelled(side=8)
    for epoch in range(3):
        objective(net.net, seed=7).losses(net, lacking, epoch)
        present, given = net.asked.pop()
        assert torch.equal(present, lacking.present)
        assert torch.equal(given, drawn_subsets(lacking, epoch, NAMES, 7))
    fixed = Recorder(network(("t1n", "t2f"), side=8))
    objective(fixed.net).losses(fixed, lacking, 0)
    assert fixed.asked.pop()[1].tolist() == [[True, False, True], [False, False, True]]


def test_a_subject_that_lacks_some_of_the_fixed_subset_trains_the_full_path_alone():
    net, given = network(("t1n", "t2f"), side=8).eval(), labelled(side=8)  # the second lacks t1n
    held = objective(net)
    both = held.losses(net, given, 0)
    first = held.losses(net, _rows(given, slice(0, 1)), 0)
    of_incomplete = {"dice_incomplete", "consistency", "mutual_information", "entropy_adversarial"}
    for name in of_incomplete | {"feature_adversarial"}:
        torch.testing.assert_close(both[name], first[name], rtol=1e-4, atol=1e-6)
    assert both["dice_full"] != first["dice_full"]

    second = held.losses(net, _rows(given, slice(1, 2)), 0, backward=lambda loss: loss.backward())
    assert all(float(second[name]) == 0 for name in of_incomplete)
    assert {name.split(".")[0] for name in moved(net)} == {"full"}


def _rows(given, rows):
    parts = {name: value[rows] for name, value in vars(given).items() if value is not None}
    return replace(given, **parts)


@pytest.mark.parametrize("present", [ALL, (False, True, False)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [8, 16, 32])
def test_one_small_crop_in_any_precision(present, precision, side):
    net, given = network(encoder="shared", width=2, side=side), labelled((present,), side)
    held = objective(net, "mean")
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        losses = held.losses(net, given, 1)
        losses["loss"].backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    gradients = [parameter.grad for parameter in (*net.parameters(), *held.parameters())]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)


@pytest.mark.parametrize("off", [(), ("entropy_adversarial",), ("entropy_adversarial", "feature_adversarial")])
def test_the_discriminators_and_nothing_else_are_outside_of_the_clipping(off):
    net = network()
    task = objective(net, **dict.fromkeys(off, 0.0))
    names = {id(value): name for name, value in task.named_parameters()}
    found = {names[id(value)].split(".")[0] for value in task.unregularised}
    assert found == {"entropy", "feature"} - {name.removesuffix("_adversarial") for name in off}


def test_dropout_is_of_channels_and_a_function_of_seed_epoch_and_index():
    net, given = network(width=16), labelled()
    held = objective(net)
    full, incomplete = held.kept(given, 0, 128)
    values = torch.stack([full, incomplete])
    assert values.shape == (2, 2, 128)
    assert values.unique().tolist() == [0.0, 1.25]
    assert 0.7 < float((values > 0).float().mean()) < 0.9
    assert len({tuple(row) for row in values.flatten(0, 1).tolist()}) == 4
    assert all(map(torch.equal, held.kept(given, 0, 128), (full, incomplete)))
    assert not torch.equal(held.kept(given, 1, 128)[0], full)
    swapped = replace(given, index=given.index.flip(0))
    assert torch.equal(held.kept(swapped, 0, 128)[0], full.flip(0))
    assert objective(net, dropout=0.0).kept(given, 0, 128)[0].tolist() == [[1.0] * 128] * 2


def test_training_on_one_batch_learns_it():
    net, given, seen = network(side=8), labelled(side=8), []
    given.label = torch.where(given.images[:, 1] > 0.5, 4, 0)  # told by the scan that all have
    given.label[:, :2] = 1
    held = objective(net, dropout=0.0)
    learner = torch.optim.Adam([*net.parameters(), *held.parameters()], 1e-2)
    for _ in range(15):
        learner.zero_grad()
        losses = held.losses(net, given, 0, backward=lambda loss: loss.backward())
        seen.append(losses["dice_full"] + losses["dice_incomplete"])
        learner.step()
    assert seen[-1] < 0.75 * seen[0]


class Answers:
    """Finds everything with t2w, nothing without; keeps what it was asked."""

    def __init__(self, truth, net):
        self.truth, self.asked = truth, []
        self.config, self.places, self.only, self.serves = net.config, net.places, net.only, net.serves

    def segment(self, images, present):
        self.asked.append(present)
        found = self.truth * present[:, 1, None, None, None]
        return F.one_hot(found, 3).movedim(-1, 1).float()


def test_scores_of_a_network_for_all_subsets_are_the_tasks():
    net, given = network(side=8), labelled((ALL, ALL), 8)
    answers = Answers(torch.where(given.label == 4, 2, given.label), net)
    held = objective(net)
    scores = held.scores(answers, given)
    assert [one[0].tolist() for one in answers.asked] == [one.tolist() for one in all_subsets(given.present[0])]
    assert scores.tolist() == held.task.scores(answers, given).tolist()
    assert (held.metric, held.unit, held.many_passes) == ("dice", "", False)


@pytest.mark.parametrize(("subset", "score"), [(("t1n", "t2w"), 1.0), (("t1n", "t2f"), 0.0)])
def test_scores_of_a_network_for_one_subset_are_of_that(subset, score):
    net, given = network(subset, side=8), labelled((ALL, ALL), 8)
    answers = Answers(torch.where(given.label == 4, 2, given.label), net)
    held = objective(net)
    assert held.scores(answers, given).tolist() == [score] * 2
    assert [one[0].tolist() for one in answers.asked] == [[name in subset for name in NAMES]]
    lacking = labelled(((True, False, True),) * 2, 8)
    assert len(held.scores(answers, lacking)) == (0 if "t2w" in subset else 2)
    assert held.scores(net, given).isfinite().all()  # the very network, too


@pytest.mark.parametrize(
    "config",
    [
        {"full": 0.0},
        {"incomplete": 0.0},
        {"consistency": -1.0},
        {"information": float("nan")},
        {"ramp": -1},
        {"dropout": 1.0},
    ],
)
def test_objectives_that_cannot_be(config):
    with pytest.raises(UserError, match=r"expected .* for acn_loss\."):
        ACNLossConfig(**config)
