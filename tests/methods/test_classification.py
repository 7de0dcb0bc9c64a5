from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medprism.methods.classification import Classification, ClassificationConfig
from medprism.methods.subsets import all_subsets, drawn_subsets
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.prism import NetworkConfig
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")
PRESENT = [[True, True, True], [False, True, True], [True, False, False], [True, True, False]]


def network():
    torch.manual_seed(0)
    config = ClassifierConfig(hidden=8, dropout=0.0)
    return Classifier(NetworkConfig(width=4, levels=3, source="tagged"), config, 3, 3, (16, 16, 16))


def labelled(classes=(7, 2, 7, 4), **keys):
    return replace(batch(PRESENT, **keys), class_label=torch.tensor(classes))


def objective(training=(10, 5, 1), validation=(2, 1, 1), **config):
    return Classification(ClassificationConfig(**config), [2, 4, 7], training, validation, NAMES, seed=1)


def test_the_loss_is_weighted_cross_entropy_and_invariance():
    made, given = network().eval(), labelled()
    losses = objective(invariance=0.5).losses(made, given, 3)
    seen = drawn_subsets(given, 3, NAMES, 1)
    logits = made.head(made.features(given.images, seen)).log_softmax(1)
    weight = torch.tensor([1 / 10, 1 / 5, 1.0])
    outputs = torch.tensor([2, 0, 2, 1])
    wanted = -(weight[outputs] * logits[torch.arange(4), outputs]).sum() / weight[outputs].sum()
    torch.testing.assert_close(losses["cross_entropy"], wanted)
    torch.testing.assert_close(losses["loss"], losses["cross_entropy"] + 0.5 * losses["invariance"])
    plain = objective(invariance=0, balance=False).losses(made, given, 3)
    assert set(plain) == {"loss", "cross_entropy"}
    torch.testing.assert_close(plain["loss"], F.nll_loss(logits, outputs))


def test_what_is_absent_is_not_read():
    given, filled = labelled(), labelled(absent=float("nan"))
    for epoch in range(3):
        a, b = (objective().losses(network(), one, epoch)["loss"] for one in (given, filled))
        assert torch.equal(a, b)


def test_backward_gives_the_gradient_of_the_loss():
    made, given = network(), labelled()
    told = objective().losses(made, given, 0, torch.Tensor.backward)
    assert not told["loss"].requires_grad
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_the_mean_score_is_balanced_accuracy_over_subjects_and_subsets():
    made = network().eval()
    rule = objective(validation=(2, 0, 1))
    subjects, right = [(2, True), (2, False), (7, True)], []
    scores = []
    for number, (value, complete) in enumerate(subjects):
        present = [[True, complete, True]] * 2
        crops = replace(batch(present, seed=number), class_label=torch.tensor([value, value]))
        scores.append(rule.scores(made, crops))
        hits = []
        for subset in all_subsets(torch.tensor(present[0])):
            mean = made.features(crops.images, subset.expand(2, 3)).mean(0, keepdim=True)
            hits.append(float([2, 4, 7][int(made.head(mean).argmax())] == value))
        right.append(sum(hits) / len(hits))
    wanted = ((right[0] + right[1]) / 2 + right[2]) / 2
    assert torch.cat(scores).mean().item() == pytest.approx(wanted)


def test_nothing_to_score_without_a_class():
    assert len(objective().scores(network(), batch(PRESENT))) == 0


def test_it_learns_to_tell_smooth_from_rough():
    made, rule = network().train(), objective((1, 1, 1), invariance=0)
    given = labelled((2, 7, 2, 7))
    smooth = F.interpolate(given.images[::2, :, ::4, ::4, ::4], scale_factor=4.0, mode="trilinear")
    given.images[::2] = smooth * given.present[::2, :, None, None, None]
    step = torch.optim.Adam(made.parameters(), lr=3e-3)
    for epoch in range(100):
        step.zero_grad()
        loss = rule.losses(made, given, epoch, torch.Tensor.backward)["loss"]
        step.step()
    assert loss < 0.2


def test_it_learns_where_representations_differ_by_little():
    """As those of a pre-trained network do, whose channels lie far apart and persons close together."""
    made, rule = network().train(), objective((1, 1, 1), invariance=0)
    with torch.no_grad():
        fuse = made.prism.prior.fusion.fuse
        fuse.weight *= 0.02
        fuse.bias.normal_(0, 5)
    given = labelled((2, 7, 2, 7))
    smooth = F.interpolate(given.images[::2, :, ::4, ::4, ::4], scale_factor=4.0, mode="trilinear")
    given.images[::2] = smooth * given.present[::2, :, None, None, None]
    step = torch.optim.Adam(made.parameters(), lr=1e-3)
    for epoch in range(60):
        step.zero_grad()
        loss = rule.losses(made, given, epoch, torch.Tensor.backward)["loss"]
        step.step()
    assert loss < 0.2
