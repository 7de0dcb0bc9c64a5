import pytest

from medprism.data.modalities import ALIASES, KIND, MODALITIES, canonical, lookup
from medprism.errors import UserError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T1", "t1n"), ("T1w", "t1n"), ("t1", "t1n"), ("MR_T1", "t1n"), ("T1ce", "t1c"), ("T1Gd", "t1c"),
        ("t1-gd", "t1c"), ("T1w_Gd", "t1c"), ("T2", "t2w"), ("T2w", "t2w"), ("FLAIR", "t2f"), ("T2-FLAIR", "t2f"),
        ("CT", "ct"), ("CTres", "ct"), ("SUV", "pet"), ("PET", "pet"), ("nac_pet", "nac"), ("pet_nac", "nac"),
        ("PDw", "pd"), ("ADC", "adc"),
    ],
)  # fmt: skip
def test_aliases_lead_to_one_name(name, expected):
    assert canonical(name) == expected


def test_canonical_names_are_fixed_points():
    assert all(canonical(name) == name for name in MODALITIES)
    assert set(KIND) == set(MODALITIES) == set(ALIASES.values())


def test_every_alias_can_be_found_as_written():
    # the table is looked up by lower-case letters and digits: an alias with another character would be dead
    assert all(canonical(alias) == name for alias, name in ALIASES.items())


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match=r"expected a modality .*got 'flare'; did you mean t2f"):
        canonical("flare")
    with pytest.raises(UserError, match="got 'qqqqqq'; rename it"):
        canonical("qqqqqq")
    assert lookup("brainmask") is None
