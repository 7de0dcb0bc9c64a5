import json
from dataclasses import replace

import pytest

from medprism.data.intensity import DEFAULT_NORMALISERS, Normaliser
from medprism.data.recipe import Recipe
from medprism.errors import UserError


def test_defaults_are_changed_where_something_is_given():
    own = Normaliser("percentile", "nonzero", "a.u.", (0.0, 1.0), (1.0, 99.0))
    recipe = Recipe.of(("t1n", "ct"), spacing=[2, 2, 3], reference="T1", normalisers={"T1w": own}, margin=2)
    assert recipe.normalisers == {"t1n": own, "ct": DEFAULT_NORMALISERS["ct"]}
    assert (recipe.spacing, recipe.reference, recipe.margin) == ((2.0, 2.0, 3.0), "t1n", 2)


def test_json_there_and_back():
    for options in ({}, {"spacing": (1, 2, 3.5), "reference": "pet", "margin": 0}):
        recipe = Recipe.of(("ct", "pet", "t2f"), **options)
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_reference_is_the_named_scan_else_the_first_present():
    modalities = ("t1n", "t1c", "t2w")
    assert Recipe.of(modalities).reference_of(["t2w", "t1c"]) == "t1c"
    assert Recipe.of(modalities, reference="t2w").reference_of(["t1n", "t2w"]) == "t2w"
    assert Recipe.of(modalities, reference="t2w").reference_of(["t1n", "t1c"]) == "t1n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing": (1, 1, 0)}, "three positive sides in mm"),
        ({"spacing": (1, float("nan"), 1)}, "three positive sides in mm"),
        ({"spacing": (1, 1)}, "three sides in mm, got 2"),
        ({"margin": -1}, "margin of 0 or more"),
        ({"reference": "ct"}, "reference among t1n, t2w, got ct"),
        (
            {"normalisers": {"t1n": replace(DEFAULT_NORMALISERS["t1n"], clip=(0, 255))}},
            r"within ±31, got \(0, 255\) for t1n",
        ),
        ({"normalisers": {"ct": DEFAULT_NORMALISERS["ct"]}}, "normalisers for t1n, t2w, got ct"),
    ],
)
def test_impossible_recipes_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Recipe.of(("t1n", "t2w"), **options)
