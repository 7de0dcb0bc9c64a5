"""PMKL's losses: each by hand, their masks, gradients, empty batches, and several processes as one."""

import math

import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F

from medprism.methods.pmkl_losses import embedding_contrast, soft_label_loss, squared_dice, weighted_cross_entropy


def logits_of(*probabilities):
    """One voxel after another along x: (1, K, n, 1, 1) logits of these probabilities."""
    return torch.tensor(probabilities).log().T[None, :, :, None, None].clone().requires_grad_()


def labels(*values):
    return torch.tensor(values)[None, :, None, None]


def test_cross_entropy_weighs_rare_classes_more():
    logits = logits_of((0.5, 0.25, 0.25), (0.5, 0.25, 0.25), (0.1, 0.8, 0.1), (0.5, 0.4, 0.1))
    value = weighted_cross_entropy(logits, labels(0, 0, 0, 1))
    # Three quarters of the voxels are of class 0, which weighs 1/4; class 1 weighs 3/4. Divided by four voxels.
    assert value.item() == pytest.approx((0.25 * -(2 * math.log(0.5) + math.log(0.1)) + 0.75 * -math.log(0.4)) / 4)


def test_cross_entropy_of_a_voxel_all_wrong_is_capped():
    logits = logits_of((0.5, 0.5), (0.999, 0.001))
    value = weighted_cross_entropy(logits, labels(0, 1))
    assert value.item() == pytest.approx(0.5 * -(math.log(0.5) + math.log(0.005)) / 2)
    value.backward()
    assert logits.grad[0, :, 0].any()
    assert not logits.grad[0, :, 1].any()


def test_dice_squares_the_guess_and_counts_the_background():
    value = squared_dice(logits_of((0.6, 0.4), (0.3, 0.7)), labels(0, 1))
    background = 2 * 0.6 / (0.6**2 + 0.3**2 + 1)
    other = 2 * 0.7 / (0.4**2 + 0.7**2 + 1)
    assert value.item() == pytest.approx(1 - (background + other) / 2)


def test_dice_is_over_the_whole_batch_and_an_absent_class_costs_one():
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 2, (2, 4, 4, 4))
    p, y = logits.softmax(1), F.one_hot(label, 3).movedim(-1, 1)
    shares = [2 * (p[:, k] * y[:, k]).sum() / ((p[:, k] ** 2).sum() + y[:, k].sum()) for k in range(2)]
    torch.testing.assert_close(squared_dice(logits, label), 1 - (shares[0] + shares[1] + 0) / 3)
    sure = 100.0 * F.one_hot(label, 3).movedim(-1, 1)
    assert float(squared_dice(sure, label)) == pytest.approx(1 / 3)


def test_soft_labels_count_where_the_teacher_is_right_and_better():
    student = logits_of((0.5, 0.5), (0.2, 0.8), (0.9, 0.1), (0.3, 0.7), (0.5, 0.5))
    teacher = logits_of((0.8, 0.2), (0.9, 0.1), (0.6, 0.4), (0.4, 0.6), (0.1, 0.9))
    value = soft_label_loss(student, teacher, labels(0, 0, 0, 0, 1), 10.0)
    # The third student is better than its teacher, the fourth's teacher is wrong, though less so.
    gaps = [math.log(0.8 / 0.5), math.log(0.9 / 0.2), 0, 0, math.log(0.9 / 0.5)]

    def soft(p, q):
        """Cross-entropy of two-class probabilities p, q of the first class, softened by 10."""
        p, q = (1 / (1 + ((1 - one) / one) ** 0.1) for one in (p, q))
        return -p * math.log(q) - (1 - p) * math.log(1 - q)

    terms = [soft(0.8, 0.5), soft(0.9, 0.2), 9, 9, soft(0.1, 0.5)]
    expected = sum(gap * term for gap, term in zip(gaps, terms, strict=True)) / sum(gaps)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert teacher.grad is None
    assert [bool(one.any()) for one in student.grad[0].movedim(1, 0)] == [True, True, False, False, True]


def test_no_gradient_through_the_weights_of_soft_labels():
    """At a voxel the gradient is weight/Σ weights · (q − p)/T, with softened student q and teacher p, and no more."""
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, 4, 4, 4, generator=draw).requires_grad_()
    teacher, label = torch.randn(2, 3, 4, 4, 4, generator=draw), torch.randint(0, 3, (2, 4, 4, 4), generator=draw)
    soft_label_loss(student, teacher, label, 2.0).backward()
    gap = (F.cross_entropy(student, label, reduction="none") - F.cross_entropy(teacher, label, reduction="none")).relu()
    weight = (gap * (teacher.argmax(1) == label)).detach()
    expected = weight[:, None] / weight.sum() * ((student / 2).softmax(1) - (teacher / 2).softmax(1)) / 2
    torch.testing.assert_close(student.grad, expected.detach())


def test_soft_labels_of_a_student_as_good_as_its_teacher_cost_nothing():
    student = logits_of((0.9, 0.1), (0.4, 0.6))
    value = soft_label_loss(student, student.detach().clone(), labels(0, 1), 10.0)
    value.backward()
    assert value == 0
    assert not student.grad.any()


def test_contrast_of_two_sub_volumes():
    student = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    teacher = torch.tensor([[0.8, 0.6], [0.0, 1.0]], requires_grad=True)
    value = embedding_contrast(student, teacher, 1.0)
    near, far = 0.2**2 + 0.6**2, [math.sqrt(2), math.sqrt(0.2**2 + 0.2**2)]  # √2 is beyond the margin
    assert value.item() == pytest.approx((2 * near + (1 - far[1]) ** 2) / 4)
    value.backward()
    torch.testing.assert_close(student.grad[0], 2 * (student[0] - teacher[0]).detach() / 4)
    assert teacher.grad.any()  # it is the embedding's: its head trains too


def test_contrast_is_over_all_pairs():
    ours, theirs = (F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(k))) for k in (0, 1))
    terms = [
        (ours[i] - theirs[j]).square().sum() if i == j else (0.7 - (ours[i] - theirs[j]).norm()).clamp(min=0) ** 2
        for i in range(5)
        for j in range(5)
    ]
    torch.testing.assert_close(embedding_contrast(ours, theirs, 0.7), torch.stack(terms).mean())


def test_equal_embeddings_have_a_finite_gradient():
    rows = F.normalize(torch.ones(3, 4)).requires_grad_()
    value = embedding_contrast(rows, rows.detach().clone(), 1.0)
    value.backward()
    assert value.item() == pytest.approx(6 / 9)
    assert rows.grad.isfinite().all()


def test_a_batch_of_nobody_costs_no_gradient():
    logits, label = torch.zeros(0, 3, 4, 4, 4, requires_grad=True), torch.zeros(0, 4, 4, 4, dtype=torch.int64)
    rows = torch.zeros(0, 16, requires_grad=True)
    values = [
        weighted_cross_entropy(logits, label),
        soft_label_loss(logits, logits, label, 10.0),
        embedding_contrast(rows, rows, 1.0),
    ]
    assert [float(value.detach()) for value in values] == [0, 0, 0]
    (sum(values) + squared_dice(logits, label)).backward()
    assert logits.grad is not None
    assert rows.grad is not None


def all_losses(weight, rows):
    """Every loss of samples that one matrix makes, and its gradient."""
    draw = torch.Generator().manual_seed(3)
    x, label = torch.randn(4, 2, 2, 2, 3, generator=draw), torch.randint(0, 3, (4, 2, 2, 2), generator=draw)
    student = (x @ weight).movedim(-1, 1)[rows]
    teacher = (3 * torch.randn(4, 3, 2, 2, 2, generator=draw))[rows]
    embeddings = [F.normalize((x @ part).flatten(1))[rows] for part in (weight, weight**2)]
    losses = [
        weighted_cross_entropy(student, label[rows]),
        squared_dice(student, label[rows]),
        soft_label_loss(student, teacher, label[rows], 10.0),
        embedding_contrast(*embeddings, 1.0),
    ]
    return [(loss.detach(), torch.autograd.grad(loss, weight, retain_graph=True)[0]) for loss in losses]


def one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    weight = torch.arange(9.0).view(3, 3).sin().requires_grad_()
    found = all_losses(weight, slice(0, 1) if rank == 0 else slice(1, 4))
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_with_all_samples(tmp_path):
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    whole = all_losses(torch.arange(9.0).view(3, 3).sin().requires_grad_(), slice(0, 4))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for (value, gradient), first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(first[0], value)
        torch.testing.assert_close(second[0], value)
        torch.testing.assert_close((first[1] + second[1]) / 2, gradient)
