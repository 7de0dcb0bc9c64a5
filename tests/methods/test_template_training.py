"""Training with templates: losses in closed form, templates out of reach of gradients, scores with templates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medprism.io.grid import Grid
from medprism.methods.classification import Classification, ClassificationConfig
from medprism.methods.masking import Masking
from medprism.methods.segmentation import Segmentation, SegmentationConfig
from medprism.methods.subsets import all_subsets
from medprism.methods.template_copies import TemplateCopies
from medprism.methods.template_training import TemplateClassification, TemplateSegmentation, disagreement
from medprism.models import NetworkConfig
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.filling import Filling
from medprism.models.segmenter import Segmented, Segmenter, SegmenterConfig
from medprism.models.templates import Templates
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")
CLASSES = (0, 1, 4)
SIDE = 16
HOLES = ((True, True, True), (False, True, True), (False, False, True))


def copies(names=NAMES):
    templates = Templates(names, Grid((SIDE,) * 3, np.eye(4)), tolerance=0)
    templates.volumes.data = 1 + 50 * templates.volumes.data
    return TemplateCopies(Filling(templates, names), Masking(ratio=0.5, block=4), names, 0)


def segmenting(consistency=0.1, **config):
    regions = {"whole": [1, 4], "core": [4]}
    task = Segmentation(SegmentationConfig(**config), CLASSES, (100, 10, 5), regions, NAMES, 0)
    return TemplateSegmentation(task, copies(), consistency)


def classifying(consistency=0.1):
    task = Classification(ClassificationConfig(), (2, 5), (3, 1), (2, 2), NAMES, 0)
    return TemplateClassification(task, copies(), consistency)


def given(present=HOLES, absent=0.0):
    made = batch([list(row) for row in present], size=(SIDE,) * 3, absent=absent)
    draw = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, 3, (len(made), *made.images.shape[2:]), generator=draw)
    return replace(made, label=torch.tensor(CLASSES)[chosen], class_label=torch.tensor([2, 5, 5])[: len(made)])


class Stub(nn.Module):
    """What is made of images is a plain function of each row; two levels, and the mean image as bottleneck."""

    def forward(self, images, present):
        assert present.all()
        fine = torch.stack([images.mean(dim=1), images[:, 0], images[:, 1]], dim=1)
        z = F.avg_pool3d(images, 8)
        return Segmented([fine, F.avg_pool3d(fine, 2)], None, torch.arange(len(images)), z)


def test_the_loss_is_the_mean_of_both_copies_and_the_difference_of_their_bottlenecks():
    objective, shown = segmenting(consistency=0.3, dice=0.5, cross_entropy=2.0), given()
    losses = objective.losses(Stub(), shown, 4)
    task, label = objective.task, objective.task.channels(shown)
    dice, charged, bottlenecks = [], [], []
    for one in objective.copies(shown, 4).split(len(shown)):
        made = Stub()(one, torch.ones(3, 3, dtype=torch.bool))
        levels = [task.terms(made.logits[0], label), task.terms(made.logits[1], label[:, 1::2, 1::2, 1::2])]
        dice.append((2 * levels[0]["dice"] + levels[1]["dice"]) / 3)
        charged.append((2 * levels[0]["cross_entropy"] + levels[1]["cross_entropy"]) / 3)
        bottlenecks.append(made.z)
    difference = ((bottlenecks[0] - bottlenecks[1]) ** 2).mean()
    assert losses.keys() == {"loss", "dice", "cross_entropy", "consistency"}
    torch.testing.assert_close(losses["dice"], (dice[0] + dice[1]) / 2)
    torch.testing.assert_close(losses["cross_entropy"], (charged[0] + charged[1]) / 2)
    torch.testing.assert_close(losses["consistency"], difference)
    assert float(difference) > 0.01
    whole = 0.25 * (dice[0] + dice[1]) + (charged[0] + charged[1]) + 0.3 * difference
    torch.testing.assert_close(losses["loss"], whole)
    assert "consistency" not in segmenting(consistency=0.0).losses(Stub(), shown, 4)


def test_of_several_bottlenecks_of_a_copy_their_mean_counts():
    z, owner = torch.randn(6, 2, 2, 2, 2), torch.tensor([0, 0, 1, 2, 2, 3])  # 2 sub-volumes, each twice
    means = torch.stack([z[:2].mean(0), z[2], z[3:5].mean(0), z[5]])
    torch.testing.assert_close(disagreement(z, owner, 4), ((means[:2] - means[2:]) ** 2).mean())
    torch.testing.assert_close(disagreement(means, owner, 4), ((means[:2] - means[2:]) ** 2).mean())


def network(combine="channels", **segmenter):
    torch.manual_seed(0)
    shape = NetworkConfig(width=4, levels=3)
    return Segmenter(shape, SegmenterConfig(combine=combine, **segmenter), 3, 3, (SIDE,) * 3)


def classifier():
    torch.manual_seed(0)
    shape = NetworkConfig(width=4, levels=3, source="tagged")
    return Classifier(shape, ClassifierConfig(hidden=4, dropout=0.0), 3, 2, (SIDE,) * 3)


PAIRS = [
    (segmenting, lambda: network(deep_supervision=1)),
    (segmenting, lambda: network("fused")),
    (classifying, classifier),
]


@pytest.mark.parametrize(("objective", "made"), PAIRS, ids=["channels", "fused", "classes"])
def test_absent_scans_change_nothing_and_templates_get_no_gradient(objective, made):
    found = []
    for absent in (0.0, float("nan")):
        one, trained = objective(), made()
        losses = one.losses(trained, given(absent=absent), 0, backward=lambda loss: loss.backward())
        assert not any(value.requires_grad for value in losses.values())
        assert list(one.parameters()) == []
        assert not one.copies.filling.volumes.requires_grad
        assert not any("volumes" in name for name in one.state_dict())
        grads = [parameter.grad for parameter in trained.parameters()]
        found.append([*losses.values(), *(grad for grad in grads if grad is not None)])
        assert float(losses["consistency"]) > 0
    assert all(value.isfinite().all() for value in found[0])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_bottleneck_is_the_encoders_before_the_prior():
    images = torch.randn(2, 3, *(SIDE,) * 3)
    here = torch.ones(2, 3, dtype=torch.bool)
    one, many, classes = network().eval(), network("fused").eval(), classifier().eval()
    with torch.no_grad():
        assert torch.equal(one(images, here).z, one.prism.backbone.bottleneck(images))
        rows, source = images.flatten(0, 1)[:, None], torch.tensor([0, 1, 2, 0, 1, 2])
        assert torch.equal(many(images, here).z, many.prism.bottleneck(rows, source))
        assert torch.equal(classes.represent(images, here).z, classes.prism.bottleneck(rows, source))


class Asked(nn.Module):
    """Finds what is bright in the mean over the scans; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def segment(self, images, present):
        assert present.all()
        self.shown.append(images)
        return torch.stack([0 * images[:, 0], images.mean(dim=1), images[:, 1]], dim=1)


def test_every_subset_is_scored_with_the_templates_of_the_others():
    objective, asked = segmenting(), Asked()
    shown = given(((True, False, True),) * 2, absent=float("nan"))
    scores = objective.scores(asked, shown)
    templates = objective.copies.templates(shown)
    subsets = all_subsets(shown.present[0])
    assert len(asked.shown) == len(subsets) == 3
    for images, subset in zip(asked.shown, subsets, strict=True):
        assert torch.equal(images[:, subset], shown.images[:, subset])
        assert torch.equal(images[:, ~subset], templates[:, ~subset])
    label = objective.task.channels(shown)
    expected = []
    for images in asked.shown:
        guess = Asked().segment(images, torch.ones(1)).argmax(dim=1)
        expected += [2 * ((guess > k) & (label > k)).sum() / ((guess > k).sum() + (label > k).sum()) for k in (0, 1)]
    torch.testing.assert_close(scores, torch.stack(expected))


def test_classes_are_scored_as_if_each_subset_were_completed_and_seen():
    """The shortcut, each scan and each template encoded once, against the plain way."""
    objective, trained = classifying(), classifier().eval()
    shown = given(((True, False, True), (True, False, True)), absent=float("nan"))
    templates, logits = objective.copies.templates(shown), []
    trained.head.register_forward_hook(lambda module, inputs, output: logits.append(output[0]))
    with torch.no_grad():
        scores = objective.scores(trained, shown)
        told, right = list(logits), []
        for subset, one in zip(all_subsets(shown.present[0]), told, strict=True):
            completed = torch.where(subset[:, None, None, None], shown.images, templates)
            pooled = trained.features(completed, torch.ones(2, 3, dtype=torch.bool)).mean(dim=0, keepdim=True)
            torch.testing.assert_close(trained.head(pooled)[0], one, rtol=1e-4, atol=1e-5)
            right.append(float(one.argmax() == 0))
    assert scores.tolist() == pytest.approx([objective.task.share[0] * np.mean(right)])
    assert len(objective.scores(trained, replace(shown, class_label=None))) == 0


def test_training_on_one_batch_learns_it():
    trained, shown, objective = network(), given(((True,) * 3,) * 3), segmenting()
    shown.label = torch.where(shown.images.mean(dim=1) > 0, 4, 0)
    learner, seen = torch.optim.Adam(trained.parameters(), 1e-2), []
    for epoch in range(5):
        learner.zero_grad()
        seen.append(objective.losses(trained, shown, epoch, backward=lambda loss: loss.backward())["loss"])
        learner.step()
    assert seen[-1] < seen[0]


def test_one_modality_alone_is_masked_and_trained():
    objective = segmenting()
    objective.copies = copies(("t2f",))
    torch.manual_seed(0)
    trained = Segmenter(NetworkConfig(width=4, levels=3), SegmenterConfig(), 1, 3, (SIDE,) * 3)
    shown = replace(batch([[True]] * 2, size=(SIDE,) * 3), label=given().label[:2])
    losses = objective.losses(trained, shown, 0)
    assert losses["loss"].isfinite()
    assert float(losses["consistency"].detach()) > 0
