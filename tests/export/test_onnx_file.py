"""Written graphs say in ONNX Runtime what the networks say, and one that does not is refused."""

import numpy as np
import pytest
import torch

from medprism.errors import UserError
from medprism.export import onnx_file
from medprism.export.attention import plain
from medprism.export.graphs import traceable
from medprism.export.onnx_folder import OUTPUTS
from medprism.models.swinunetr import SwinUNETR
from tests.export.networks import M, make

pytest.importorskip("onnxruntime")

FAST = ["transfer-tagged"]
SLOW = ["fused-mean", "fused-gates", "channels-tagged", "unet3d", "uniformer", "classifier-gates"]
SLOW += ["mmformer", "pmkl-teacher", "pmkl-student", "acn-of-one"]


def written(name, folder):
    traced = traceable(*make(name), OUTPUTS)
    examples = {"images": torch.zeros(2, *traced.shape), "present": torch.ones(2, M, dtype=torch.bool)}
    onnx_file.write(traced.graph, examples, traced.output, folder / "model.onnx")
    return traced, folder / "model.onnx"


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_graph_is_the_network_on_every_subset(name, tmp_path):
    traced, path = written(name, tmp_path)
    found = onnx_file.compared(path, traced)
    assert found.relative < 1e-4
    assert found.subsets == len(traced.subsets)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return written("channels", tmp_path_factory.mktemp("small"))


def test_any_batch_and_nan_where_nothing_is_present(small):
    traced, path = small
    session = onnx_file.session(path)
    images = np.random.default_rng(0).normal(size=(5, *traced.shape)).astype(np.float32)
    present = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 1]], bool)
    images[~present] = np.nan
    [got] = session.run(None, {"images": images, "present": present})
    assert got.shape == (5, 3, *traced.shape[1:])
    assert np.isnan(got[3]).all()
    assert np.isfinite(got[[0, 1, 2, 4]]).all()
    for row in (0, 4):
        [alone] = session.run(None, {"images": images[row : row + 1], "present": present[row : row + 1]})
        np.testing.assert_allclose(alone[0], got[row], rtol=1e-4, atol=1e-5)


def test_a_graph_of_other_weights_is_refused(small):
    traced, path = small
    with torch.no_grad():
        weight = next(traced.network.parameters())
        weight += 0.1
        with pytest.raises(UserError, match=r"model\.onnx to be within 0\.001 of the network"):
            onnx_file.compared(path, traced)
        weight -= 0.1


def test_a_graph_that_says_nan_is_refused():
    with pytest.raises(UserError, match="nan"):
        onnx_file.agreed(onnx_file.Agreement(float("nan"), float("nan"), 1), "model.onnx")


def test_an_operation_that_onnx_lacks_is_refused_in_a_line(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x).real

    with pytest.raises(UserError, match="the exporter refused it") as caught:
        onnx_file.write(Odd(), {"x": torch.randn(2, 3, 3)}, "y", tmp_path / "odd.onnx")
    assert "\n" not in str(caught.value)


def test_weights_of_many_gigabytes_go_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 100)
    layer, x = torch.nn.Linear(300, 8), torch.randn(2, 300)
    onnx_file.write(layer.eval(), {"x": x}, "y", tmp_path / "model.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    [got] = onnx_file.session(tmp_path / "model.onnx").run(None, {"x": x[:1].numpy()})
    np.testing.assert_allclose(got, layer(x[:1]).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_shifted_windows_of_attention_are_those_of_the_network(tmp_path):
    torch.manual_seed(0)
    stage = SwinUNETR(1, 0, 12).net.swinViT.layers1[0].eval().requires_grad_(False)
    x = torch.randn(2, 12, 8, 8, 8)
    wanted = stage(x).numpy()
    onnx_file.write(plain(stage), {"x": x}, "y", tmp_path / "stage.onnx")
    [got] = onnx_file.session(tmp_path / "stage.onnx").run(None, {"x": x.numpy()})
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_subsets_that_are_compared():
    rows = onnx_file.chosen([(0,), (1,), (0, 1)], 2)
    assert rows == [[[True, False]], [[False, True]], [[True, True]], [[True, False], [False, True]]]
    assert onnx_file.chosen([(1,)], 2) == [[[False, True]], [[False, True], [False, True]]]
    many = [(place,) for place in range(40)]
    assert len(onnx_file.chosen(many, 40)) == onnx_file.MOST + 1
