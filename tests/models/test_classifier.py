import pytest
import torch

from medprism.evaluation.leakage import assert_no_leak
from medprism.models.build import build
from medprism.models.classifier import Classifier, ClassifierConfig
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
        x_h = made.represent(scans(), PRESENT).x_h
    mean = vectors.sum(1) / PRESENT.sum(1, keepdim=True)
    maximum = torch.stack([(x_h[0] + x_h[1]) / 2, x_h[2]]).amax((2, 3, 4))
    torch.testing.assert_close(features, torch.cat([mean, maximum], 1))
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
