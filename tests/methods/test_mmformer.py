"""mmFormer's objective: its parts, what is seen, alignment, dropout's draws, that it learns."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medprism.methods.alignment import Alignment, AlignmentConfig
from medprism.methods.mmformer import MmFormerLoss
from medprism.methods.region_losses import rfnet_cross_entropy, rfnet_dice
from medprism.methods.segmentation import Segmentation, SegmentationConfig
from medprism.methods.subsets import drawn_subsets
from medprism.models.mmformer import MmFormed, MmFormer, MmFormerConfig
from medprism.models.modality_encoder import EncoderConfig
from tests.methods.batches import batch

NAMES = ("t1n", "t2w", "t2f")
CLASSES = (0, 1, 4)
SIZE = (32, 16, 16)
INCOMPLETE = ((True, True, False), (False, True, False))


def objective(anchor="none", **alignment):
    task = Segmentation(SegmentationConfig(), CLASSES, (100, 10, 10), {"whole": [1, 4]}, NAMES, 0)
    return MmFormerLoss(task, None if anchor == "none" else Alignment(AlignmentConfig(anchor, **alignment), NAMES))


def labelled(present=INCOMPLETE, absent=0.0):
    """A batch with a block of each of the label values `CLASSES`."""
    given = batch([list(row) for row in present], size=SIZE, absent=absent)
    label = torch.zeros(len(given), *SIZE, dtype=torch.int64)
    label[:, 4:12, 4:12, :8], label[:, 16:30, 2:8] = 1, 4
    return replace(given, label=label)


def network(kind="none", **config):
    torch.manual_seed(0)
    shape = MmFormerConfig(**{"width": 4, "dim": 16, "heads": 2, "mlp": 16, **config})
    return MmFormer(shape, EncoderConfig(kind), len(NAMES), len(CLASSES), SIZE)


class Fixed(torch.nn.Module):
    """Gives what it was made with, and keeps what it was asked."""

    def __init__(self, present):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        owner, source = present.nonzero(as_tuple=True)
        logits = [torch.randn(len(present), 3, *(side >> n for side in SIZE), generator=draw) for n in range(5)]
        separate = torch.randn(len(owner), 3, *SIZE, generator=draw)
        z = torch.randn(*present.shape, 1, *SIZE, generator=draw)
        self.made, self.asked = MmFormed(logits, separate, owner, source, z), []

    def forward(self, images, present, given):
        self.asked.append((present, given))
        return self.made


def charged(guess, label):
    return (rfnet_dice(guess, label) + rfnet_cross_entropy(guess, label))[0]


def test_the_parts_count_alike():
    given = labelled()
    fixed, label = Fixed(given.present), torch.where(given.label == 4, 2, given.label)
    losses = objective().losses(fixed, given, 3)
    fine, *coarse = fixed.made.logits
    alone = fixed.made.separate.softmax(1)  # subject 0 with scans 0 and 1, subject 1 with scan 1
    enlarged = [
        F.interpolate(one.softmax(1), SIZE, mode="trilinear", align_corners=True) for one in coarse
    ]  # after the softmax
    expected = {
        "fused": charged(fine.softmax(1), label),
        "separate": charged(alone[:1], label[:1]) + charged(alone[1:], label[[0, 1]]),
        "deep": sum(charged(one, label) for one in enlarged),
    }
    expected["loss"] = sum(expected.values())
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_the_network_is_given_what_there_is_and_a_subset_of_it():
    given = labelled([[True] * 3] * 6)
    fixed = Fixed(given.present)
    objective().losses(fixed, given, 3)
    [(present, drawn)] = fixed.asked
    assert torch.equal(present, given.present)
    assert torch.equal(drawn, drawn_subsets(given, 3, NAMES, 0))
    assert not drawn.all()


@pytest.mark.parametrize("anchor", ["normal", "weighted"])
def test_alignment_is_added_with_its_weight(anchor):
    given = labelled()
    fixed, told = Fixed(given.present), {"modality": "t2w"} if anchor == "weighted" else {}
    with_it = objective(anchor, weight=0.5, **told)
    aligned, bare = with_it.losses(fixed, given, 0), objective().losses(fixed, given, 0)
    term = with_it.alignment(fixed.made.z, given.present)
    torch.testing.assert_close(aligned["alignment"], term)
    torch.testing.assert_close(aligned["loss"], bare["loss"] + 0.5 * term)
    assert term > 0


@pytest.mark.parametrize("kind", ["none", "separate", "shared", "joint"])
def test_absent_scans_are_never_read(kind):
    found = []
    for filling in (0.0, math.nan):
        net, with_it = network(kind).train(), objective("mean")
        losses = with_it.losses(net, labelled(absent=filling), 0, torch.Tensor.backward)
        found.append((losses, {name: p.grad for name, p in net.named_parameters() if p.grad is not None}))
    (losses, grads), (others, more) = found
    assert losses.keys() == {"loss", "fused", "separate", "deep", "alignment"}
    assert all(value.isfinite() and not value.requires_grad for value in losses.values())
    assert all(torch.equal(value, others[name]) for name, value in losses.items())
    assert grads.keys() == more.keys()
    assert all(grad.isfinite().all() and torch.equal(grad, more[name]) for name, grad in grads.items())
    assert not any(name.startswith("encoders.2.") for name in grads)  # nobody has the third


def test_dropout_is_a_function_of_seed_epoch_and_samples():
    net, given = network(dropout=0.5).train(), labelled()
    first, state = objective().losses(net, given, 0)["loss"], torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(objective().losses(net, given, 0)["loss"], first)
    torch.set_rng_state(state)
    objective().losses(net, given, 0)
    assert torch.equal(torch.get_rng_state(), state)
    # Each subject has one scan that it can be seen through, so that nothing but dropout depends on these.
    single = labelled(((True, False, False), (False, True, False)))
    losses = [objective().losses(net, one, epoch)["fused"] for one, epoch in ((single, 0), (single, 1))]
    losses.append(objective().losses(net, replace(single, index=single.index + 5), 0)["fused"])
    assert len({loss.item() for loss in losses}) == 3


def test_under_autocast_losses_and_gradients_are_about_the_same():
    found = []
    for enabled in (False, True):
        net = network(dropout=0.0).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = objective().losses(net, labelled(), 0)["loss"]
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
        # Further down there are maps of a few voxels, of whose normalisation rounding alone makes something else.
        near = (net.fused.merges[0].join, net.separate.merges[0].join)
        found.append((loss.detach(), *(conv.weight.grad.flatten() for conv in near)))
    (loss, *grads), (other, *grads_bf16) = found
    torch.testing.assert_close(other, loss, rtol=0.02, atol=0)
    for one, two in zip(grads, grads_bf16, strict=True):
        assert F.cosine_similarity(one, two, dim=0) > 0.9


def test_it_learns():
    net, given, task = network("shared").train(), labelled([[True] * 3] * 2), objective("mean")
    given.images[:] = given.label[:, None].float() + 0.1 * given.images
    steps = torch.optim.AdamW(net.parameters(), 3e-3)
    found = []
    for epoch in range(12):
        steps.zero_grad()
        found.append(task.losses(net, given, epoch, torch.Tensor.backward)["loss"].item())
        steps.step()
    assert found[-1] < 0.8 * found[0]
    net.eval()
    with torch.no_grad():
        scores = task.scores(net, given)
    assert scores.shape == (7,)  # subsets of three scans, one region
    assert (task.metric, task.unit, task.many_passes) == ("dice", "", False)
