import pytest
import torch

from medprism.evaluation.leakage import assert_no_leak
from medprism.models.build import build
from medprism.models.classifier import Classifier, ClassifierConfig, Standardise
from medprism.models.prism import NetworkConfig, Prism


def network(fusion="mean", **shape):
    torch.manual_seed(0)
    shape = NetworkConfig(**{"width": 4, "levels": 3, "source": "tagged", **shape})
    return Classifier(shape, ClassifierConfig(fusion=fusion, hidden=8), 3, 4, (16, 16, 16)).eval()


def scans(count=2):
    return torch.randn(count, 3, 16, 16, 16, generator=torch.Generator().manual_seed(1))


PRESENT = torch.tensor([[True, False, True], [False, True, False]])


@pytest.mark.parametrize("fusion", ["mean", "gates"])
def test_features_are_mean_and_maximum_of_what_the_scans_say(fusion):
    made = network(fusion)  # fresh gates are equal
    with torch.no_grad():
        features, vectors = made.features(scans(), PRESENT), made.embed(scans(), PRESENT)
        found = made.represent(scans(), PRESENT)
        *finer, z = made.prism.encode(scans()[PRESENT][:, None], torch.tensor([0, 2, 1]))
        levels = [*finer, made.prism.personalise(z)]
    torch.testing.assert_close(found.x_h, levels[-1])
    fused = [torch.stack([(one[0] + one[1]) / 2, one[2]]) for one in levels]
    means, maxima = [one.mean((2, 3, 4)) for one in fused], [one.amax((2, 3, 4)) for one in fused]
    torch.testing.assert_close(features, torch.cat([*means, *maxima], 1))
    torch.testing.assert_close(means[-1], vectors.sum(1) / PRESENT.sum(1, keepdim=True))
    with torch.no_grad():
        torch.testing.assert_close(made(scans(), PRESENT)[0], made.head(features))
    assert made.head(features).shape == (2, 4)


@pytest.mark.parametrize("fusion", ["mean", "gates"])
def test_absent_scans_are_not_read(fusion):
    made = network(fusion)
    with torch.no_grad():
        assert_no_leak(lambda images, present: (made.features(images, present), made.embed(images, present)), scans())


@pytest.mark.parametrize("shape", [{}, {"intensity": 2}, {"prior": "none", "source": "repeated"}])
def test_rebuilt_from_its_description_and_trained_in_every_part(shape):
    made = network("gates", **shape)
    again = build(made.architecture)
    again.load_state_dict(made.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            again.eval().features(scans(), PRESENT), made.features(scans(), PRESENT), rtol=0, atol=0
        )
    logits, _ = again.train()(scans(), torch.ones(2, 3, dtype=torch.bool))
    logits.sum().backward()
    assert [name for name, parameter in again.named_parameters() if parameter.grad is None] == []


def test_it_is_a_prism_without_decoder():
    shape = NetworkConfig(width=4, levels=3, source="tagged")
    whole = Prism(shape, 3, (16, 16, 16)).state_dict()
    own = {name.removeprefix("prism.") for name in network().state_dict() if name.startswith("prism.")}
    assert own < set(whole)
    parts = {name.split(".")[1] for name in set(whole) - own}
    assert parts == {"up", "merge", "refine", "head"}


@pytest.mark.slow
def test_swinunetr_without_decoder_has_the_same_bottleneck():
    shape = NetworkConfig(backbone="swinunetr", width=12)
    torch.manual_seed(0)
    whole, bare = Prism(shape, 2, (64, 64, 64)), Prism(shape, 2, (64, 64, 64), outputs=0)
    bare.load_state_dict({name: whole.state_dict()[name] for name in bare.state_dict()})
    assert sum(p.numel() for p in bare.parameters()) < 0.8 * sum(p.numel() for p in whole.parameters())
    x, source = torch.randn(1, 1, 64, 64, 64), torch.tensor([1])
    with torch.no_grad():
        torch.testing.assert_close(bare.bottleneck(x, source), whole.bottleneck(x, source))
        for one, other in zip(bare.encode(x, source), whole.encode(x, source), strict=True):
            torch.testing.assert_close(one, other)


def far(rows, seed=0):
    """Rows whose channels lie far apart, and which differ by little."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.logspace(-2, 0, 5)
    return torch.tensor([-9.0, -3.0, 0.0, 4.0, 7.0]) + spread * torch.randn(rows, 5, generator=draw)


def test_standardise_takes_away_what_all_have_in_common():
    made, rows = Standardise(5), far(400)
    for first in range(0, 400, 4):
        told = made(rows[first : first + 4])
        if not first:  # the first batch is all that is known
            torch.testing.assert_close(told.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
            torch.testing.assert_close(told.square().mean(0), torch.ones(5), atol=4e-2, rtol=0)
    told = made.eval()(far(1000, seed=1))
    assert told.mean(0).abs().max() < 0.5
    assert ((told.std(0) > 0.7) & (told.std(0) < 1.4)).all()


def test_standardise_says_the_same_of_a_row_whatever_is_beside_it():
    made = Standardise(5)
    for seed in range(30):
        made(far(4, seed))
    made.eval()
    before, rows = {name: value.clone() for name, value in made.state_dict().items()}, far(6, 99)
    torch.testing.assert_close(torch.cat([made(row[None]) for row in rows]), made(rows))
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in before.items())
    again = Standardise(5)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.eval()(rows), made(rows))


def test_no_gradient_moves_all_rows_alike():
    made, rows = Standardise(5), far(6).requires_grad_()
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    (made(rows) * weight).sum().backward()
    torch.testing.assert_close(rows.grad.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        rows.grad, (weight - weight.mean(0)) * torch.rsqrt(made.variance + 1e-6), atol=1e-4, rtol=1e-4
    )
    alone = far(1).requires_grad_()
    made(alone).sum().backward()
    assert (alone.grad > 0).all()  # one row has no others
