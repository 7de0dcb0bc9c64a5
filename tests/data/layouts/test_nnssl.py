import json

import pytest

from medprism.data.layouts import nnssl
from medprism.errors import UserError
from tests.data.layouts.fakes import read


def pretrain_json(root, paths, **datasets):
    images = [{"name": p, "modality": m, "image_path": p, "associated_masks": None} for m, p in paths]
    session = {"session_id": "ses-1", "images": images}
    dataset = {"name": "ds1", "subjects": {"sub-1": {"subject_id": "sub-1", "sessions": {"ses-1": session}}}}
    content = {"collection_index": 1, "collection_name": "open", "datasets": {"1": dataset, **datasets}}
    root.mkdir(parents=True, exist_ok=True)
    (root / "pretrain_data.json").write_text(json.dumps(content))
    return root


def test_nnssl(tmp_path, monkeypatch):
    monkeypatch.delenv("nnssl_raw", raising=False)
    paths = [
        ("T1w", "$nnssl_raw/D1/a.nii.gz"),
        ("T1w", "$nnssl_raw/D1/b.nii.gz"),
        ("SWI", "x"),
        ("FLAIR", "/abs/c.nii"),
    ]
    found = read(pretrain_json(tmp_path / "D1", paths), nnssl)
    (one,) = found.subjects()
    assert (one.subject, one.person, one.site) == ("sub-1_ses-1", "sub-1", "ds1")
    assert one.images == {"t1n": "a.nii.gz", "t2f": "/abs/c.nii"}
    assert any("SWI 1" in note for note in found.notes)
    assert any("1 images left out" in note for note in found.notes)


def test_nnssl_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("nnssl_raw", str(tmp_path / "elsewhere"))
    found = nnssl.read(pretrain_json(tmp_path / "D1", [("T1w", "$nnssl_raw/D1/a.nii.gz")]))
    assert found.subjects()[0].images["t1n"] == "../elsewhere/D1/a.nii.gz"
    monkeypatch.delenv("OTHER", raising=False)
    with pytest.raises(UserError, match="environment variable OTHER"):
        nnssl.read(pretrain_json(tmp_path / "D2", [("T1w", "$OTHER/a.nii.gz")]))


def test_nnssl_persons_of_two_data_sets_differ(tmp_path):
    image = {"name": "a", "modality": "T2w", "image_path": "b.nii.gz"}
    other = {"name": "ds2", "subjects": {"sub-1": {"sessions": {"ses-1": {"images": [image]}}}}}
    found = nnssl.read(pretrain_json(tmp_path, [("T1w", "a.nii.gz")], other=other))
    assert {s.person for s in found.subjects()} == {"ds1_sub-1", "ds2_sub-1"}


def test_nnssl_refuses_another_form(tmp_path):
    (tmp_path / "pretrain_data.json").write_text('{"datasets": {"1": {"subjects": []}}}')
    with pytest.raises(UserError, match="expected datasets > subjects"):
        nnssl.read(tmp_path)
