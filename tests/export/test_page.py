"""What the page beside a graph says of each kind of model."""

import re

import pytest

from medprism.data.intensity import DEFAULT_NORMALISERS, Normaliser
from medprism.export import onnx_folder
from medprism.export.onnx_file import Agreement
from medprism.export.words import normalisation
from medprism.inference.load import load
from tests.export.folders import model_folder

SAYS = {
    "transfer": ("makes t1n, t2w, t2f of any of t1n, t2w, t2f", "[images_made]", "typical_scales"),
    "channels": ("outlines all, bright in any of", "[logits]", "0: background (label 0), 1: dark (label 1)"),
    "classifier-mean": ("tells the class (dull, bright, odd)", "[features]", "`head.onnx` makes logits"),
    "acn-of-one": ("outlines all, bright in any of", "[[False, True, False]]", "made for t2w and nothing else"),
}


@pytest.mark.parametrize("name", SAYS)
def test_a_page_of_each_kind(name, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_folder, "write", lambda graph, examples, output, path: path.write_bytes(b"graph"))
    monkeypatch.setattr(onnx_folder, "compared", lambda path, traced: Agreement(0.0, 0.0, len(traced.subsets)))
    monkeypatch.setattr(onnx_folder, "_head", lambda network, path: path.write_bytes(b"head") and Agreement(0, 0, 1))
    model_folder(tmp_path / "model", name)
    (tmp_path / "graph").mkdir()
    onnx_folder.fill(load(tmp_path / "model", "cpu"), tmp_path / "graph")
    page = (tmp_path / "graph/README.md").read_text()
    for words in (*SAYS[name], "not for diagnosis", "Somebody 2025"):
        assert words in page
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    compile(code, "page", "exec")


def test_normalisation_in_words():
    assert normalisation(DEFAULT_NORMALISERS["ct"]) == "-1000 and 1000 HU become -2 and 2; clipped to -2 … 2"
    assert normalisation(DEFAULT_NORMALISERS["nac"]) == "x / (4 × median of the foreground); clipped to 0 … 8"
    share = Normaliser("percentile", "nonzero", "a.u.", (0.0, 1.0), (1.0, 99.0))
    assert normalisation(share) == "percentiles 1 and 99 of the foreground become 0 and 1; clipped to 0 … 1"
