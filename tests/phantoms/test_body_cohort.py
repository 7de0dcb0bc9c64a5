import json

import nibabel as nib
import numpy as np
import pytest

from medprism.cli import main
from medprism.data.cohort import Cohort
from medprism.data.intensity import DEFAULT_NORMALISERS
from medprism.data.prepare import prepare
from medprism.errors import UserError
from medprism.phantoms.body import body_subject
from medprism.phantoms.body_cohort import Bodies, write_body_cohort
from medprism.phantoms.verb import phantom

BODIES = {
    "subjects": 4,
    "spacing": 8.0,
    "domain": "head-neck",
    "scanner": "B",
    "missing_rate": 0.5,
    "seed": 1,
    "fractions": (0.7, 0.1, 0.2),
}
LEAST = {"pet": 0.8, "nac": 0.7}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("bodies") / "out"
    return write_body_cohort(out, subjects=4, spacing=8.0, domain="head-neck", scanner="B", missing_rate=0.5, seed=1)


def test_the_cohort_reader_takes_it(written):
    cohort = Cohort.load(written)
    assert cohort.name == "phantom-head-neck-B"
    assert cohort.origin["phantom"] is True
    assert (cohort.origin["kind"], cohort.origin["domain"]) == ("body", "head-neck")
    assert cohort.modalities == ("ct", "pet", "nac")
    assert cohort.labels == {"background": 0, "lesion": 1}
    assert cohort.regions == {"lesion": [1]}
    assert sorted(subject.class_label for subject in cohort.subjects()) == [0, 0, 1, 1]
    for subject in cohort.subjects():
        images = [nib.load(cohort.root / path) for path in (*subject.images.values(), subject.seg)]
        assert len({image.shape for image in images}) == 1
        assert all(nib.aff2axcodes(image.affine) == ("R", "A", "S") for image in images)
        assert int(images[0].header["sform_code"]) == 1
        label = np.asarray(images[-1].dataobj)
        assert label.dtype == np.uint8
        assert subject.class_label == int(label.any())
        note = json.loads((cohort.root / subject.subject / "phantom.json").read_text())
        assert note["phantom"] is True
        assert bool(note["truth"]["lesions"]) == bool(label.any())


def test_missing_scans_are_of_the_training_subjects_only(written):
    cohort = Cohort.load(written)
    assert all(len(subject.images) == 3 for subject in (*cohort.validation, *cohort.test))
    recipe = Bodies(400, 4.5, "A", 0.4, 0, (1.0, 0.0, 0.0), domain="torso")
    splits = recipe.splits()
    kept = [recipe.present(i, splits) for i in range(400)]
    assert min(map(len, kept)) == 1
    # a person who would lose all keeps one: 0.4³ of the persons
    assert np.mean([len(k) for k in kept]) / 3 == pytest.approx(0.6 + 0.4**3 / 3, abs=0.05)


def test_prepare_takes_the_usual_normalisers(written, tmp_path):
    cache = prepare(written, out=tmp_path / "cache")
    for split in ("training", "validation", "test"):
        for entry in cache.subjects(split):
            masks = {
                m: f for m, f, here in zip(cache.modalities, entry.foreground(), entry.present, strict=True) if here
            }
            for mask in masks.values():
                assert 0.05 < mask.mean() < 0.9
            for other in ("pet", "nac"):  # agree with CT on where the body is
                if "ct" in masks and other in masks:
                    a, b = masks["ct"], masks[other]
                    assert (a & b).sum() / (a | b).sum() > LEAST[other]
            assert np.isfinite(entry.images()).all()


@pytest.mark.parametrize("scanner", ["A", "B"])
def test_heads_and_torsos_have_one_scale_of_uncorrected_pet(scanner):
    normaliser, muscle = DEFAULT_NORMALISERS["nac"], {}
    for domain in ("head-neck", "torso"):
        made = body_subject(1, 0, 6.0, domain, scanner).images
        inside = DEFAULT_NORMALISERS["ct"].foreground_mask(made["ct"])
        mask = normaliser.foreground_mask(made["nac"])
        assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.85
        soft = inside & (made["ct"] > 0) & (made["ct"] < 100) & (made["pet"] > 0.3) & (made["pet"] < 1)
        muscle[domain] = np.median(normaliser.fit(made["nac"], mask).apply(made["nac"])[soft])
    # By a high percentile the ratio is a sixth or less, as heads hold a brain.
    assert 0.5 < muscle["head-neck"] / muscle["torso"] < 2


def test_persons_are_those_of_the_domain_and_seed(written):
    def persons(**change):
        recipe = Bodies(**{**BODIES, **change})
        return {recipe.person(i) for i in range(recipe.subjects)}

    cohort = Cohort.load(written)
    assert {subject.person for subject in cohort.subjects()} == persons()
    note = json.loads((cohort.root / "sub-0001" / "phantom.json").read_text())
    assert note["person"] in persons()
    assert persons(scanner="A", spacing=3.0, missing_rate=0.0) == persons()
    assert not persons(seed=2) & persons()
    assert not persons(domain="torso") & persons()


def test_a_cohort_without_the_uncorrected_pet_is_a_command_away(written, tmp_path):
    words = ["inspect", str(written), "--modalities", "ct,pet", "--out", str(tmp_path / "c.json")]
    assert main(words) == 0
    cohort = Cohort.load(tmp_path / "c.json")
    assert cohort.modalities == ("ct", "pet")
    whole = {subject.person: subject for subject in Cohort.load(written).subjects()}
    for subject in cohort.subjects():
        assert set(subject.images) == set(whole[subject.person].images) & {"ct", "pet"}


def test_kinds_do_not_mix_in_a_folder(written):
    folder = written.parent
    (folder / "cohort.json").rename(folder / "cohort.kept")
    try:
        with pytest.raises(UserError, match="--force"):
            write_body_cohort(folder, subjects=4, spacing=8.0, domain="torso", scanner="B", missing_rate=0.5, seed=1)
    finally:
        (folder / "cohort.kept").rename(folder / "cohort.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": 0}, "subject"),
        ({"spacing": 0.1}, "spacing"),
        ({"missing_rate": 1.0}, "missing rate"),
        ({"seed": -1}, "seed"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"scanner": "C"}, "scanner"),
        ({"domain": "leg"}, "domain"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        write_body_cohort(tmp_path / "out", **({"subjects": 3} | change))
    assert not (tmp_path / "out").exists()


def test_the_verb_refuses_a_field_of_view_for_brains(tmp_path, capsys):
    with pytest.raises(UserError, match="--domain with phantom body only"):
        phantom("brain", out=tmp_path / "out", domain="torso")
    with pytest.raises(UserError, match="--low-grade with phantom brain only"):
        phantom("body", out=tmp_path / "out", low_grade=0.5)
    assert main(["phantom", "body", "--out", str(tmp_path / "out"), "--domain", "leg"]) == 2
    assert "torso" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_verb_chooses_spacing_and_field_of_view(tmp_path, monkeypatch):
    from medprism.phantoms import verb

    calls = {}
    for name in ("write_body_cohort", "write_brain_cohort"):
        monkeypatch.setattr(verb, name, lambda out, name=name, **options: calls.setdefault(name, options) and out)
    phantom("body", out=tmp_path)
    phantom("brain", out=tmp_path)
    assert (calls["write_body_cohort"]["spacing"], calls["write_body_cohort"]["domain"]) == (4.5, "torso")
    assert calls["write_brain_cohort"]["spacing"] == 3.0
    assert "domain" not in calls["write_brain_cohort"]
