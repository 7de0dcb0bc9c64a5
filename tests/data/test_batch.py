import pytest
import torch

from medprism.data.batch import UNLABELLED, Sample, collate
from medprism.errors import UserError


def sample(index=0, present=(True, False), label=None, class_label=None):
    generator = torch.Generator().manual_seed(index)
    here = torch.tensor(present)
    images = torch.randn(2, 4, 5, 3, generator=generator) * here[:, None, None, None]
    affine = torch.eye(4, dtype=torch.float64) * (index + 1)
    return Sample(images, images > 0, here, affine, label, class_label, f"p{index}", f"s{index}", index)


def test_samples_are_stacked_in_order_with_their_types():
    samples = [sample(0), sample(1, (True, True)), sample(2, (False, True))]
    batch = collate(samples)
    assert len(batch) == 3
    for name in ("images", "foreground", "present", "affine"):
        stacked = getattr(batch, name)
        assert all(torch.equal(stacked[i], getattr(s, name)) for i, s in enumerate(samples))
    types = batch.images.dtype, batch.foreground.dtype, batch.affine.dtype, batch.index.dtype
    assert types == (torch.float32, torch.bool, torch.float64, torch.int64)
    assert (batch.subject, batch.person, batch.index.tolist()) == (["s0", "s1", "s2"], ["p0", "p1", "p2"], [0, 1, 2])
    assert batch.label is None
    assert batch.class_label is None


def test_subjects_without_labels_are_ignored_beside_those_with():
    label = torch.full((4, 5, 3), 2)
    batch = collate([sample(0), sample(1, label=label, class_label=1)])
    assert torch.equal(batch.label[1], label)
    assert (batch.label[0] == UNLABELLED).all()
    assert batch.class_label.tolist() == [UNLABELLED, 1]
    # That is the value that torch's losses skip: a batch of both costs what the labelled one costs alone.
    scores = torch.randn(2, 3, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    both = torch.nn.functional.cross_entropy(scores, batch.label, ignore_index=UNLABELLED)
    assert torch.isclose(both, torch.nn.functional.cross_entropy(scores[1:], batch.label[1:]))


def test_class_zero_is_a_class():
    assert collate([sample(0, class_label=0)]).class_label.tolist() == [0]


def test_a_subject_without_any_scan_is_refused_by_name():
    with pytest.raises(UserError, match=r"at least one scan.*s1"):
        collate([sample(0), sample(1, (False, False))])


def test_to_moves_every_tensor_and_nothing_else():
    batch = collate([sample(0, label=torch.zeros(4, 5, 3, dtype=torch.int64), class_label=1)])
    moved = batch.to("meta")
    tensors = {"images", "foreground", "present", "affine", "label", "class_label", "index"}
    assert all(getattr(moved, name).is_meta for name in tensors)
    assert moved.subject == batch.subject
