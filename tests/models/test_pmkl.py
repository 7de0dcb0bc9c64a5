"""Teacher and student of PMKL: layers against a reference, sizes, absent scans, order, what a student is asked."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch.nn import functional as F

from medprism.errors import UserError
from medprism.evaluation.leakage import assert_no_leak
from medprism.models.modality_encoder import EncoderConfig
from medprism.models.pmkl import Student, StudentConfig, Teacher, TeacherConfig, filled
from medprism.models.pmkl_blocks import AttentionFusion, Encoder

NAMES = ("t2f", "t1c", "t1n")
SIZE = (16, 16, 16)


def teacher(encoder="none", *, leaks=False, modalities=3, classes=4, width=2, size=SIZE):
    torch.manual_seed(0)
    return Teacher(TeacherConfig(width), EncoderConfig(encoder, leaks), modalities, classes, size).eval()


def student(*given, names=NAMES, classes=4, width=2, size=SIZE):
    torch.manual_seed(0)
    return Student(StudentConfig(width, given), EncoderConfig(), len(names), classes, size, names).eval()


def scans(batch=2, modalities=3, size=SIZE):
    return torch.randn(batch, modalities, *size, generator=torch.Generator().manual_seed(1))


def some():
    """Subjects with two, one and two scans; nobody has the last."""
    return torch.tensor([[True, True, False], [False, True, False], [True, True, False]])


def weights(network):
    return sum(parameter.numel() for parameter in network.parameters())


def by_hand(conv, norm, x, stride=1):
    """Reflection, convolution, normalisation over each sample's and channel's voxels, scale and shift."""
    pad = conv.kernel_size[0] // 2
    x = F.conv3d(F.pad(x, (pad,) * 6, mode="reflect") if pad else x, conv.weight, conv.bias, stride)
    variance, mean = torch.var_mean(x, dim=(2, 3, 4), keepdim=True, correction=0)
    shape = (1, -1, 1, 1, 1)
    return (x - mean) / torch.sqrt(variance + 1e-5) * norm.weight.view(shape) + norm.bias.view(shape)


def perturbed(network):
    """With scales, shifts and biases that are not one and zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return network


def test_an_encoder_level_adds_its_first_and_third_convolution():
    encoder, x = perturbed(Encoder(2, 3)), torch.randn(2, 2, 16, 16, 16)
    expected = x
    for level, feature in enumerate(encoder(x)):
        entry, (second, third) = encoder.enter[level], encoder.refine[level]
        first = F.leaky_relu(by_hand(entry[0], entry[1], expected, 2 if level else 1), 0.2)
        y = F.leaky_relu(by_hand(second[0], second[1], first), 0.2)
        expected = first + F.leaky_relu(by_hand(third[0], third[1], y), 0.2)
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-5)
    assert encoder.channels == (3, 6, 12, 24)
    assert expected.shape == (2, 24, 2, 2, 2)


def test_attention_weighs_each_modality_at_each_place():
    fusion, features = perturbed(AttentionFusion(4, 3)), torch.randn(2, 3, 4, 4, 4, 4)
    maps = torch.sigmoid(by_hand(*fusion.attention, features.flatten(1, 2)))
    assert maps.shape == (2, 3, 4, 4, 4)
    weighed = torch.cat([maps[:, m : m + 1] * features[:, m] for m in range(3)], dim=1)
    expected = F.leaky_relu(by_hand(fusion.merge[0], fusion.merge[1], weighed), 0.2)
    torch.testing.assert_close(fusion(features), expected)


@pytest.mark.parametrize(("modalities", "classes", "width"), [(4, 5, 16), (2, 3, 8)])
def test_numbers_of_weights(modalities, classes, width):
    """Each convolution has k³ · in · out weights and a bias, each normalisation a scale and a shift."""
    levels = [width, 2 * width, 4 * width, 8 * width]

    def block(a, b, kernel=3):
        return kernel**3 * a * b + b + 2 * b

    def encoder(start):
        return sum(block(a, b) + 2 * block(b, b) for a, b in zip([start, *levels], levels, strict=False))

    decoder = sum(block(2 * c, c) + block(2 * c, c) + block(c, c, 1) for c in levels[:-1]) + width * classes + classes
    fusion = sum(block(modalities * c, modalities) + block(modalities * c, c, 1) for c in levels)
    names = tuple(f"m{number}" for number in range(modalities))
    made = student(names=names, classes=classes, width=width)
    assert weights(made) == encoder(modalities) + decoder
    made = teacher(modalities=modalities, classes=classes, width=width)
    assert weights(made) == modalities * encoder(1) + fusion + decoder
    assert made.latent.channels == 1


def test_three_cubed_kernels_reflect_and_all_have_a_bias():
    for network in (teacher(), student()):
        convs = [module for module in network.modules() if isinstance(module, torch.nn.Conv3d)]
        assert all(conv.bias is not None for conv in convs)
        modes = {(conv.kernel_size[0], conv.padding_mode) for conv in convs}
        assert modes == {(3, "reflect"), (1, "zeros")}  # of one voxel there is nothing to pad


@pytest.mark.parametrize("size", [SIZE, (32, 16, 24)])
def test_shapes_for_any_size_that_fits(size):
    images, present = scans(3, size=size), some()
    with torch.no_grad():
        for network in (teacher(), student()):
            made = network(images, present)
            assert made.logits.shape == (3, 4, *size)
            assert made.feature.shape == (3, 2, *size)
            torch.testing.assert_close(network.decoder.head(made.feature), made.logits)
            assert torch.equal(network.segment(images, present), made.logits)
            assert network.embed(images, present).shape == (3, 3, 16)


def test_a_single_scan_is_repeated_and_others_are_filled_with_the_mean():
    images = scans(3)
    made = filled(images, torch.tensor([[False, True, False], [True, False, True], [True, True, True]]))
    assert torch.equal(made[0], images[0, 1].expand(3, *SIZE))
    torch.testing.assert_close(made[1], torch.stack([images[1, 0], (images[1, 0] + images[1, 2]) / 2, images[1, 2]]))
    assert torch.equal(made[2], images[2])


NETWORKS = {
    "teacher": teacher,
    "separate": lambda: teacher("separate"),
    "shared": lambda: teacher("shared"),
    "joint": lambda: teacher("joint"),
    "student": student,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_absent_scans_are_never_read(name):
    network = perturbed(NETWORKS[name]())
    with torch.no_grad():
        assert_no_leak(network.segment, scans())
        assert_no_leak(network.embed, scans())


def test_the_leaking_encoder_leaks():
    network, images, present = teacher("joint", leaks=True), scans(3), some()
    other = images.clone()
    other[:, 2] = 0
    with torch.no_grad():
        assert not torch.equal(network.segment(images, present), network.segment(other, present))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_complete_and_do_not_see_what_is_absent(name):
    grads = []
    for filling in (0.0, math.nan):
        network, images = NETWORKS[name]().train(), scans(3)
        images[~some()] = filling
        network.segment(images, some()).square().mean().backward()
        grads.append({key: parameter.grad for key, parameter in network.named_parameters()})
    # Of the encoder of a scan that nobody has, too: several processes wait for each other's.
    assert all(grad is not None and grad.isfinite().all() for grad in grads[0].values())
    assert all(torch.equal(grad, grads[1][key]) for key, grad in grads[0].items())
    if name != "student":
        assert not any(grad.any() for key, grad in grads[0].items() if key.startswith("encoders.2"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_equals_its_subjects_one_by_one(name):
    network, images = perturbed(NETWORKS[name]()), scans(3)
    with torch.no_grad():
        for ask in (network.segment, network.embed):
            whole = ask(images, some())
            for row in range(3):
                alone = ask(images[row : row + 1], some()[row : row + 1])
                torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_a_teachers_embedding_is_of_one_scan_alone():
    for network in (teacher(), student()):
        images = scans(1)
        with torch.no_grad():
            every = network.embed(images, torch.tensor([[True, True, True]]))
            one = network.embed(images, torch.tensor([[False, True, False]]))
        torch.testing.assert_close(one[0, 1], every[0, 1])
        assert not one[0, [0, 2]].any()


def test_a_student_of_one_subset_answers_nothing_else():
    network, images = student("T1Gd", "flair"), scans(1)  # by any of their names
    assert network.given.tolist() == [True, True, False]
    assert network.segment(images, torch.tensor([[True, True, False]])).shape == (1, 4, *SIZE)
    for present, told in (([True, False, False], "t2f"), ([True, True, True], "t2f t1c t1n")):
        with pytest.raises(UserError, match=f"expected t2f t1c, for which this student was trained, got {told};"):
            network.segment(images, torch.tensor([present]))


def test_a_row_without_scans_is_refused():
    for network in (teacher(), student()):
        with pytest.raises(ValueError, match="at least one"):
            network.segment(scans(1), torch.zeros(1, 3, dtype=torch.bool))


def test_the_architecture_is_json_that_makes_the_network_again():
    for network in (teacher("shared"), student(), student("t1n")):
        told = json.loads(json.dumps(network.architecture))
        shape = EncoderConfig(**told["alignment"]), told["modalities"], told["classes"], tuple(told["patch_size"])
        if isinstance(network, Teacher):
            again = Teacher(TeacherConfig(**told["pmkl_teacher"]), *shape)
        else:
            again = Student(StudentConfig(**told["pmkl_student"]), *shape, told["names"])
            assert torch.equal(again.given, network.given)
        assert again.architecture == network.architecture
        again.load_state_dict(network.state_dict())
        assert asdict(again.config) == asdict(network.config)


@pytest.mark.parametrize("size", [(16, 16, 20), (8, 16, 16)])
def test_patches_that_do_not_fit(size):
    for make in (teacher, student):
        with pytest.raises(UserError, match="multiples of 8 from 16 on"):
            make(size=size)


def test_what_a_student_cannot_be():
    with pytest.raises(UserError, match=r"some of t2f t1c t1n for student.given, got pet"):
        student("pet")
    with pytest.raises(UserError, match="each modality once"):
        student("t1c", "t1c")
    with pytest.raises(UserError, match="no encoder T in a student, got shared"):
        Student(StudentConfig(4), EncoderConfig("shared"), 3, 2, SIZE, NAMES)


@pytest.mark.parametrize("name", ["shared", "student"])
def test_bf16(name):
    network, images = NETWORKS[name](), scans(3)
    with torch.autocast("cpu", torch.bfloat16):
        made = network(images, some())
        assert network.embed(images, some()).dtype == torch.float32
    made.logits.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    exact = network.segment(images, some())
    assert (made.logits - exact).square().mean() < 0.05**2 * exact.square().mean()
