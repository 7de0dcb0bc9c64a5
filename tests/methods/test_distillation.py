"""Teacher and student objectives: terms, what is seen, who learns, what is saved, incomplete subjects, scores."""

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.methods.alignment import Alignment, AlignmentConfig
from medprism.methods.distillation import Distillation, DistillationConfig, MetricHead, TeacherObjective
from medprism.methods.pmkl_losses import embedding_contrast, soft_label_loss, squared_dice, weighted_cross_entropy
from medprism.methods.segmentation import Segmentation, SegmentationConfig
from medprism.models.modality_encoder import EncoderConfig
from medprism.models.pmkl import Student, StudentConfig, Teacher, TeacherConfig
from medprism.training.module import OptimiserConfig, Training
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")
CLASSES = (0, 1, 4)
REGIONS = {"whole": [1, 4], "core": [4]}
SIZE = (16, 16, 16)
PRESENT = ((True, True, True), (False, True, True), (True, False, True))


def task(classes=CLASSES, regions=REGIONS):
    return Segmentation(SegmentationConfig(), classes, [1] * len(classes), regions, NAMES, 0)


def teacher(encoder="none", *, width=2, classes=3):
    torch.manual_seed(0)
    return Teacher(TeacherConfig(width), EncoderConfig(encoder), 3, classes, SIZE)


def student(*given, width=4, names=NAMES, classes=3):
    torch.manual_seed(1)
    return Student(StudentConfig(width, given), EncoderConfig(), len(names), classes, SIZE, names)


def distillation(network, taught_by=None, **config):
    torch.manual_seed(2)
    return Distillation(DistillationConfig(**config), task(), network, taught_by or teacher(), NAMES, CLASSES)


def labelled(present=PRESENT, absent=0.0):
    given = batch([list(row) for row in present], size=SIZE, absent=absent)
    chosen = torch.randint(0, 3, (len(given), *SIZE), generator=torch.Generator().manual_seed(0))
    return replace(given, label=torch.tensor(CLASSES)[chosen])


def channels(given):
    """The output channels of the label values, written out."""
    return torch.where(given.label == 4, 2, given.label)


def learned(objective, network, given, epoch=0):
    """Losses, and the gradients of network and objective by name."""
    losses = objective.losses(network, given, epoch, backward=lambda loss: loss.backward())
    parameters = {**dict(network.named_parameters()), **dict(objective.named_parameters(prefix="objective"))}
    return losses, {name: parameter.grad for name, parameter in parameters.items()}


def test_a_teacher_learns_from_all_scans():
    network, given = teacher(), labelled()
    losses = TeacherObjective(task()).losses(network, given, 0)
    logits = network.segment(given.images, given.present)
    cross_entropy, dice = weighted_cross_entropy(logits, channels(given)), squared_dice(logits, channels(given))
    torch.testing.assert_close(losses, {"loss": cross_entropy + dice, "cross_entropy": cross_entropy, "dice": dice})


def test_alignment_is_of_the_latents_before_the_encoders():
    network, given = teacher("shared"), labelled()
    alignment = Alignment(AlignmentConfig("weighted", "t2f", weight=0.25), NAMES)
    objective = TeacherObjective(task(), alignment)
    losses, grads = learned(objective, network, given)
    assert losses.keys() == {"loss", "cross_entropy", "dice", "alignment"}
    expected = alignment(network.latent(given.images, given.present), given.present).detach()
    assert expected > 0
    torch.testing.assert_close(losses["alignment"], expected)
    torch.testing.assert_close(losses["loss"], losses["cross_entropy"] + losses["dice"] + 0.25 * expected)
    assert grads["objective.alignment.weights"].any()
    assert not any(value.requires_grad for value in losses.values())


def test_each_term_of_the_student():
    network, given = student(), labelled()
    objective = distillation(network, soft=0.25, contrast=2.0, temperature=5.0)
    losses = objective.losses(network, given, 3)
    made = network(given.images, objective.task.subsets(given, 3))
    taught = objective.teacher.network(given.images, given.present)
    expected = {
        "cross_entropy": weighted_cross_entropy(made.logits, channels(given)),
        "dice": squared_dice(made.logits, channels(given)),
        "soft": soft_label_loss(made.logits, taught.logits, channels(given), 5.0),
        "contrast": embedding_contrast(
            objective.heads["student"](made.feature), objective.heads["teacher"](taught.feature), 1.0
        ),
    }
    assert all(value > 0 for value in expected.values())
    total = expected["cross_entropy"] + expected["dice"] + 0.25 * expected["soft"] + 2 * expected["contrast"]
    torch.testing.assert_close(losses, {"loss": total, **expected})


@pytest.mark.parametrize("off", ["soft", "contrast"])
def test_a_weight_of_zero_switches_a_term_off(off):
    network = student()
    objective = distillation(network, **{off: 0.0})
    losses, grads = learned(objective, network, labelled())
    assert off not in losses
    assert all(grad is not None for grad in grads.values())


def test_student_and_heads_learn_and_the_teacher_does_not():
    network, frozen = student(), teacher()
    before = copy.deepcopy(frozen.state_dict())
    objective = distillation(network, frozen).train()
    learner = torch.optim.SGD([*network.parameters(), *objective.parameters()], 0.1)
    losses, grads = learned(objective, network, labelled())
    learner.step()
    assert all(value.isfinite() and not value.requires_grad for value in losses.values())
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert {name for name in grads if name.startswith("objective")} == {
        f"objective.heads.{who}.{part}"
        for who in ("student", "teacher")
        for part in ("hidden.weight", "out.weight", "out.bias")
    }
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.training
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_a_checkpoint_holds_student_and_heads_alone_and_goes_on_with_the_same_teacher():
    def training():
        network = student()
        return Training(network, distillation(network), OptimiserConfig(), steps=10)

    first, again = training(), training()
    learned(first.objective, first.network, labelled())
    torch.optim.Adam(parameter for parameter in first.parameters() if parameter.requires_grad).step()
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    assert not any("teacher." in name and "heads." not in name for name in first.state_dict())
    again.load_state_dict(torch.load(stored, weights_only=True))
    one, other = (module.objective.losses(module.network, labelled(), 1) for module in (first, again))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("given", [(), ("t2w",)])
def test_absent_scans_change_neither_losses_nor_gradients(given):
    made = []
    for filling in (0.0, math.nan):
        network = student(*given)
        losses, grads = learned(distillation(network), network, labelled(absent=filling))
        made.append([*losses.values(), *grads.values()])
        taught = teacher("joint")
        losses, grads = learned(
            TeacherObjective(task(), Alignment(AlignmentConfig("mean"), NAMES)), taught, labelled(absent=filling)
        )
        made[-1] += [*losses.values(), *grads.values()]
    assert all(value.isfinite().all() for value in made[0])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_the_student_sees_its_subset_and_the_teacher_all():
    network, given = student("t1n"), labelled()
    objective = distillation(network)
    want = objective.losses(network, given, 0)
    given.images[:, 1:] = given.images[:, 1:].roll(1, dims=2)  # only the teacher can tell
    got = objective.losses(network, given, 0)
    assert torch.equal(got["dice"], want["dice"])
    assert not torch.equal(got["soft"], want["soft"])


def test_sub_volumes_without_the_fixed_scans_sit_out():
    network, given = student("t1n", "t2f"), labelled()
    objective = distillation(network)
    assert objective.given(network, given, 0).tolist() == [[True, False, True], [False] * 3, [True, False, True]]
    rows = [0, 2]
    others = replace(
        given,
        images=given.images[rows],
        present=given.present[rows],
        label=given.label[rows],
        index=given.index[rows],
        subject=["s0", "s2"],
        person=["s0", "s2"],
    )
    torch.testing.assert_close(objective.losses(network, given, 0), objective.losses(network, others, 0))


def test_a_batch_in_which_all_sit_out_has_a_zero_gradient():
    network = student("t1n")
    losses, grads = learned(distillation(network), network, labelled([[False, True, True]]))
    assert {name: value.item() for name, value in losses.items() if name not in ("loss", "dice")} == {
        "cross_entropy": 0,
        "soft": 0,
        "contrast": 0,
    }
    assert all(grad is not None and not grad.any() for grad in grads.values())


def test_other_epochs_other_subsets():
    network, given = student(), labelled([[True] * 3] * 4)
    objective = distillation(network)
    drawn = [objective.given(network, given, epoch) for epoch in range(6)]
    assert torch.equal(drawn[2], objective.given(network, given, 2))
    assert len({tuple(one.flatten().tolist()) for one in drawn}) > 1
    assert all(one.any(dim=1).all() for one in drawn)


def test_an_embedding_has_length_one_and_takes_any_crop():
    torch.manual_seed(0)
    head, feature = MetricHead(4), torch.randn(2, 4, 16, 8, 24)
    made = head(feature)
    assert made.shape == (2, 16)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(2))
    windows = torch.stack(
        [
            feature[:, :, 8 * x : 8 * x + 8, 4 * y : 4 * y + 4, 12 * z : 12 * z + 12].mean((2, 3, 4))
            for x in range(2)
            for y in range(2)
            for z in range(2)
        ],
        dim=2,
    ).flatten(1)
    torch.testing.assert_close(made, F.normalize(head.out(head.hidden(windows).relu()), dim=1))
    assert sum(parameter.numel() for parameter in MetricHead(16).parameters()) == 8 * 16 * 32 + 32 * 16 + 16


def test_bf16():
    network, given = student(), labelled()
    objective = distillation(network)
    with torch.autocast("cpu", torch.bfloat16):
        made = objective.losses(network, given, 0)
        aligned = TeacherObjective(task(), Alignment(AlignmentConfig("mean"), NAMES)).losses(
            teacher("shared"), given, 0
        )
    assert {value.dtype for value in (*made.values(), *aligned.values())} == {torch.float32}
    torch.testing.assert_close(made, objective.losses(network, given, 0), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_training_on_one_batch_learns_it(kind):
    given, seen = labelled([[True] * 3, [False, True, True]]), []
    given.images[:, 1] = F.interpolate(given.images[:, 1:2, ::4, ::4, ::4], size=SIZE, mode="trilinear")[:, 0]
    given.label = torch.bucketize(
        given.images[:, 1].contiguous(), torch.tensor([0.0, 0.5])
    )  # told by the scan that both have
    given.label[given.label == 2] = 4
    network = teacher(width=4) if kind == "teacher" else student("t2w")
    objective = TeacherObjective(task()) if kind == "teacher" else distillation(network)
    learner = torch.optim.Adam([*network.parameters(), *objective.parameters()], 1e-2)
    for _ in range(12):
        learner.zero_grad()
        losses, _ = learned(objective, network, given)
        seen.append(losses["cross_entropy"] + losses["dice"])
        learner.step()
    assert seen[-1] < 0.75 * seen[0]


class Answers(torch.nn.Module):
    """Finds everything, and keeps what it was asked."""

    def __init__(self, truth, given=()):
        super().__init__()
        self.truth, self.asked, self.given = truth, [], torch.tensor([name in given for name in NAMES])

    def segment(self, images, present):
        assert present.shape == images.shape[:2]
        self.asked.append(present[0].tolist())
        found = self.truth.clone()
        found[:, :8] = 0  # but in one half of the crop
        return F.one_hot(found, 3).movedim(-1, 1).float()


def test_scores_are_of_what_the_network_is_for():
    given = labelled([[True, False, True]])
    given.label[:] = 1
    given.label[:, :4] = 0
    objective, network = distillation(student()), Answers(channels(given))
    half = 2 * 8 / (8 + 12)  # eight of the twelve slices that hold the region; there is no core
    torch.testing.assert_close(TeacherObjective(task()).scores(network, given), torch.tensor([half]))
    assert network.asked == [[True, False, True]]
    torch.testing.assert_close(objective.scores(network, given), torch.tensor([half] * 3))  # each subset
    network = Answers(channels(given), ("t1n",))
    torch.testing.assert_close(objective.scores(network, given), torch.tensor([half]))
    assert network.asked == [[True, False, False]]
    assert len(objective.scores(Answers(channels(given), ("t1n", "t2w")), given)) == 0  # the subject lacks one
    given.label = None
    assert len(objective.scores(network, given)) == 0


def test_teachers_that_do_not_fit():
    ours = student()

    def made(network=None, names=NAMES, classes=CLASSES, pupil=ours):
        return Distillation(DistillationConfig(), task(), pupil, network or teacher(), names, classes)

    assert made()
    with pytest.raises(UserError, match=r"expected a teacher for t1n t2w t2f in this order.*got one for t2w t1n t2f"):
        made(names=("t2w", "t1n", "t2f"))
    with pytest.raises(UserError, match=r"expected a teacher for the student's 3 classes.* 0 1 2;"):
        made(classes=(0, 1, 2))
    with pytest.raises(UserError, match="expected a teacher for the student's 3 classes"):
        made(network=teacher(classes=2), classes=(0, 1))
    with pytest.raises(UserError, match="expected a teacher of PMKL, got a Student"):
        made(network=student())


@pytest.mark.parametrize("config", [{"temperature": 0.0}, {"soft": -1.0}, {"contrast": math.inf}])
def test_objectives_that_cannot_be(config):
    with pytest.raises(UserError, match=r"expected .* for distillation\."):
        DistillationConfig(**config)
