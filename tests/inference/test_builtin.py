"""The model that comes along: small, sound, nobody's paths in it, and better than a grey brain at once."""

import logging

import nibabel as nib
import numpy as np
import pytest

from medprism.inference.model import Model
from medprism.models.folder import BUILTIN, find_model, load_card
from medprism.phantoms.cohort import write_brain_cohort

NAME = "builtin:brain-phantom"


def test_it_is_small_and_says_what_it_is():
    card, folder = load_card(NAME), find_model(NAME)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 25e6
    assert card["cohort"] == "phantom-brain-both"
    assert "phantoms" in card["note"]
    assert card["made_with"][-1].startswith("medprism ")
    assert card["config"]["data"] == "cache"
    assert [each.name for each in BUILTIN.iterdir()] == ["brain-phantom"]


@pytest.mark.slow
def test_it_makes_a_scan_of_a_person_whom_it_has_not_seen(tmp_path, caplog):
    made = write_brain_cohort(tmp_path / "brains", subjects=1, seed=7).parent / "sub-0001"
    with caplog.at_level(logging.WARNING):
        model = Model.load(NAME)
    assert "means nothing" in caplog.text
    given, truth = made / "sub-0001-t1n.nii.gz", nib.load(made / "sub-0001-t2w.nii.gz").get_fdata()
    found = model.synthesize({"t1n": given}, "t2w")["t2w"].array
    assert found.shape == truth.shape
    inside = truth > 0
    assert np.corrcoef(found[inside], truth[inside])[0, 1] > 0.8
