"""InfoNCE against its closed form."""

import math
import socket

import pytest
import torch
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.methods.contrast import ContrastConfig, ModalityContrast, info_nce, symmetric_info_nce
from tests.training.runs import finish, start


def reference(queries, keys, positive, query_sample, key_sample, t):
    """Eq. 2 written out with loops."""
    losses = []
    for i, query in enumerate(queries):
        scores = {}
        for j, key in enumerate(keys):
            if j == positive[i] or query_sample[i] != key_sample[j]:
                scores[j] = math.exp(float(torch.cosine_similarity(query, key, dim=0)) / t)
        losses.append(-math.log(scores[int(positive[i])] / sum(scores.values())))
    return torch.tensor(losses)


def test_against_the_loop():
    torch.manual_seed(0)
    queries, keys = torch.randn(5, 8), torch.randn(7, 8)
    sample = torch.tensor([3, 3, 4, 4, 5])
    key_sample = torch.tensor([9, 9, 3, 3, 4, 4, 5])
    positive = torch.arange(5) + 2
    found = info_nce(queries, keys, positive, sample, key_sample, 0.5)
    torch.testing.assert_close(found, reference(queries, keys, positive, sample, key_sample, 0.5))


def test_indistinguishable_embeddings_give_the_log_of_the_number_of_choices():
    ones = torch.ones(4, 3)
    sample = torch.tensor([0, 0, 1, 2])
    found = info_nce(ones, ones, torch.arange(4), sample, sample, 0.1)
    expected = torch.tensor([math.log(3), math.log(3), math.log(4), math.log(4)])
    torch.testing.assert_close(found, expected)


def test_another_modality_of_the_same_sub_volume_is_neither():
    """However alike it is, the loss does not change."""
    torch.manual_seed(0)
    queries, keys = torch.randn(3, 4), torch.randn(3, 4)
    sample = torch.tensor([0, 0, 1])
    before = info_nce(queries, keys, torch.arange(3), sample, sample, 0.1)[0]
    keys[1] = queries[0]
    torch.testing.assert_close(info_nce(queries, keys, torch.arange(3), sample, sample, 0.1)[0], before)


def test_one_sub_volume_is_refused():
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match="at least two sub-volumes"):
        info_nce(ones, ones, torch.arange(2), torch.zeros(2), torch.zeros(2), 0.1)


def by_loop(f, g, sample, kind, t):
    """Equations 4 and 5, and the share of right choices, with loops."""
    losses, right = [], []
    for a, b in ((f, g), (g, f)):
        for i in range(len(a)):
            rivals = [j for j in range(len(a)) if sample[j] != sample[i] and kind[j] == kind[i]]
            own, *others = (float(torch.cosine_similarity(a[i], b[j], dim=0)) for j in (i, *rivals))
            losses.append(-math.log(math.exp(own / t) / sum(math.exp(x / t) for x in (own, *others))))
            if others:
                right.append(own > max(others))
    return sum(losses) / len(losses), sum(right) / len(right)


@pytest.mark.parametrize("kind", [[0, 1, 0, 1, 0, 2], [0] * 6])
def test_symmetric_loss_against_the_loop(kind):
    torch.manual_seed(0)
    f, g = torch.randn(6, 8), torch.randn(6, 8)
    g += 0.5 * f
    sample, kind = torch.tensor([3, 3, 5, 5, 8, 8]), torch.tensor(kind)
    loss, accuracy = symmetric_info_nce(f, g, sample, kind, 0.3)
    expected, right = by_loop(f, g, sample, kind, 0.3)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(accuracy) == pytest.approx(right)


def test_symmetric_loss_is_the_cross_entropy_of_the_release():
    """With one modality and no scan twice: logits of all pairs, the diagonal right, both directions."""
    torch.manual_seed(0)
    f, g = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    loss, _ = symmetric_info_nce(f, g, torch.arange(3), torch.zeros(3), 1.0)
    logits = F.normalize(f, dim=1) @ F.normalize(g, dim=1).T
    expected = (F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits.T, torch.arange(3))) / 2
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(torch.autograd.grad(loss, (f, g)), torch.autograd.grad(expected, (f, g)), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_symmetric_loss_of_perfect_and_of_equal_embeddings(count):
    """Aligned pairs that are orthogonal to all others: ln(1 + (n − 1) e^(−1/τ)); all alike: ln n."""
    one, sample, kind = torch.eye(count), torch.arange(count), torch.zeros(count)
    loss, accuracy = symmetric_info_nce(one, 3 * one, sample, kind, 0.5)
    assert float(loss) == pytest.approx(math.log(1 + (count - 1) * math.exp(-2)), rel=1e-5)
    assert float(accuracy) == 1
    loss, accuracy = symmetric_info_nce(torch.ones(count, 4), torch.ones(count, 4), sample, kind, 0.5)
    assert float(loss) == pytest.approx(math.log(count), rel=1e-5)
    assert float(accuracy) == 0


def test_a_scan_without_a_rival_costs_nothing_and_has_no_gradient():
    torch.manual_seed(0)
    f, g = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    loss, _ = symmetric_info_nce(f, g, torch.arange(3), torch.tensor([0, 0, 1]), 0.1)
    pair, _ = symmetric_info_nce(f[:2], g[:2], torch.arange(2), torch.zeros(2), 0.1)
    torch.testing.assert_close(loss, pair * 2 / 3)
    loss.backward()
    assert not f.grad[2].any()
    assert not g.grad[2].any()
    alone, accuracy = symmetric_info_nce(f, g, torch.arange(3), torch.arange(3), 0.1)
    assert (alone.item(), accuracy.item()) == (0, 1)


def test_features_are_compared_pooled_projected_or_whole():
    torch.manual_seed(0)
    f, g = torch.randn(3, 4, 2, 3, 2), torch.randn(3, 4, 2, 3, 2)
    sample, modality = torch.arange(3), torch.tensor([0, 1, 1])
    for config, features in (
        (ContrastConfig(0.2), lambda x: x.mean(dim=(2, 3, 4))),
        (ContrastConfig(0.2, pooled=False), lambda x: x.flatten(1)),
    ):
        contrast = ModalityContrast(config, 4)
        assert not list(contrast.parameters())
        expected = symmetric_info_nce(features(f), features(g), sample, modality, 0.2)
        assert contrast(f, g, sample, modality) == expected
    contrast = ModalityContrast(ContrastConfig(projection=6), 4)
    assert contrast._embedding(f).shape == (3, 6)
    everyone = ModalityContrast(ContrastConfig(0.2, same_modality=False), 4)(f, g, sample, modality)
    assert everyone == symmetric_info_nce(f.mean((2, 3, 4)), g.mean((2, 3, 4)), sample, torch.zeros(3), 0.2)


def test_a_projection_of_whole_maps_is_refused():
    with pytest.raises(UserError, match=r"infonce\.pooled with infonce\.projection=8"):
        ContrastConfig(pooled=False, projection=8)


def own_rows(rank, world, port, rows, out):
    """One of several processes; writes its loss and its gradients."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    f, g, sample, kind = make_rows()
    f, g = (x[rows[rank]].clone().requires_grad_() for x in (f, g))
    loss, accuracy = symmetric_info_nce(f, g, sample[rows[rank]], kind[rows[rank]], 0.2)
    loss.backward()
    torch.save((loss.detach(), accuracy, f.grad, g.grad), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def make_rows():
    generator = torch.Generator().manual_seed(1)
    f, g = torch.randn(5, 6, generator=generator), torch.randn(5, 6, generator=generator)
    return f, g, torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 0, 1])


@pytest.mark.slow
def test_two_processes_are_one_with_all_rows(tmp_path):
    """Of 3 and 2 rows: the same loss in both, and gradients whose mean over processes is that of one process."""
    rows = [[0, 1, 2], [3, 4]]
    f, g, sample, kind = make_rows()
    f.requires_grad_()
    g.requires_grad_()
    loss, accuracy = symmetric_info_nce(f, g, sample, kind, 0.2)
    loss.backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert finish(*(start(own_rows, rank, 2, port, rows, tmp_path) for rank in range(2))) == [0, 0]
    for rank in range(2):
        its_loss, its_accuracy, df, dg = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(its_loss, loss.detach())
        torch.testing.assert_close(its_accuracy, accuracy)
        torch.testing.assert_close(df / 2, f.grad[rows[rank]])
        torch.testing.assert_close(dg / 2, g.grad[rows[rank]])
