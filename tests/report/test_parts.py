import base64
import io
import json

import matplotlib.image
import numpy as np
import pytest

from medprism.evaluation.results import Results, Row, Score
from medprism.report import cohort, figures, representation, tables
from medprism.report.pictures import viewers
from medprism.report.runs import Run, read_log
from medprism.report.style import DIVERGING, png_uri


def pixels(uri):
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))[..., :3]


def test_png_holds_the_values():
    image = np.linspace(-1, 1, 35).reshape(5, 7)
    expected = np.round((image + 1) / 2 * 255) / 255
    np.testing.assert_allclose(pixels(png_uri(image, -1, 1))[..., 0], expected, atol=1.1 / 255)
    beyond = pixels(png_uri(np.array([[-9.0, 9.0, np.nan]]), 0, 1))
    assert beyond[0, :, 0].tolist() == [0, 1, 0]
    middle = pixels(png_uri(np.zeros((1, 1)), -1, 1, DIVERGING))
    assert middle.min() > 0.95


def test_log_with_blank_cells_and_rows_apart(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train/loss,val/psnr,note\n0,9,2.0,,a\n0,9,,20.5,\n1,18,1.0,,\n1,19,0.5,,\n1,19,,nan,\n2,,,x\n"
    )
    assert read_log(path) == {"train/loss": [(0, 2.0), (1, 0.5)], "val/psnr": [(0, 20.5)]}


def test_curves_of_nothing_are_none():
    assert figures.curves({"run": {}}) is None
    assert figures.curves({"run": {"lr": [(0, 1.0)]}}) is None
    assert figures.curves({"run": {"train/loss": [(0, 1.0)]}}).startswith("data:image/svg+xml")


def slices(tmp_path, *, present=(True, True), cut_out=(False, False)):
    """One subject with a mark at its right, front, top."""
    shapes = {"axial": (6, 8), "coronal": (6, 10), "sagittal": (8, 10)}
    arrays = {}
    for plane, shape in shapes.items():
        image = np.zeros((2, *shape), np.float16)
        image[:, 1:-1, 1:-1] = 1
        image[:, -1, -1] = 5
        arrays[f"median/{plane}/images"] = image
        arrays[f"median/{plane}/foreground"] = image == 1
        arrays[f"median/{plane}/generated/0"] = image + np.float16(0.5)
    info = {"subject": "s", "value": 20.0, "present": present, "cut_out": cut_out, "spacing": [2.0, 1.0, 3.0]}
    path = tmp_path / "slices.npz"
    np.savez(path, about=json.dumps({"score": "x", "subjects": {"median": info}}), **arrays)
    return path


def test_planes_are_shown_as_radiologists_do(tmp_path):
    (viewer,), _ = viewers(slices(tmp_path), ["t1n", "t2w"])
    axial = pixels(viewer.images["axial/true/t1n"])[..., 0]
    assert axial.shape == (8, 6)  # front to back down, the patient's right to left across
    assert np.unravel_index(axial.argmax(), axial.shape) == (0, 0)
    assert dict(viewer.planes) == {"axial": 12 / 8, "coronal": round(12 / 30, 4), "sagittal": round(8 / 30, 4)}
    assert viewer.pairs == [("t1n", "t2w")]


def test_difference_is_signed_and_centred(tmp_path):
    (viewer,), _ = viewers(slices(tmp_path), ["t1n", "t2w"])
    half = float(viewer.ranges["t2w"])
    colour = pixels(viewer.images["axial/diff/t1n/t2w"])[4, 3]
    expected = DIVERGING[round((0.5 + half) / (2 * half) * 255)] / 255
    np.testing.assert_allclose(colour, expected, atol=0.05)
    assert colour[0] > colour[2]  # too bright is red


def test_absent_target_is_generated_but_has_no_truth(tmp_path):
    (viewer,), _ = viewers(slices(tmp_path, present=(True, False)), ["t1n", "t2w"])
    assert "axial/made/t1n/t2w" in viewer.images
    assert "axial/true/t2w" not in viewer.images
    assert "axial/diff/t1n/t2w" not in viewer.images
    assert viewer.absent == ["t2w"]


def test_air_that_was_cut_away_is_black(tmp_path):
    (viewer,), _ = viewers(slices(tmp_path, cut_out=(True, True)), ["t1n", "t2w"])
    made = pixels(viewer.images["axial/made/t1n/t2w"])[..., 0]
    assert made[0, 0] == 0
    assert made[4, 3] > 0


def write_representation(path, *, persons=6):
    rng = np.random.default_rng(0)
    names = [(p, m) for p in range(persons) for m in ("t1n", "t2w")]
    vectors = np.stack([20 * np.eye(persons)[p] + rng.normal(size=persons) for p, _ in names])
    subject = np.array([f"s{p}" for p, _ in names])
    np.savez(path, vectors=vectors, subject=subject, person=subject, modality=np.array([m for _, m in names]))
    return path


def test_map_keeps_persons_together_and_is_seeded(tmp_path):
    path = write_representation(tmp_path / "r.npz")
    first, again = (representation.maps(path, ["t1n", "t2w"], seed=3)["x_h"] for _ in range(2))
    assert first == again
    assert first != representation.maps(path, ["t1n", "t2w"], seed=4)["x_h"]
    assert first.persons == 6
    places = np.array([(p.x, p.y) for p in first.points])
    assert ((places >= 0) & (places <= 100)).all()
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(12)
    nearest = distance.argmin(axis=1)
    assert np.mean([first.points[k].by_person == first.points[n].by_person for k, n in enumerate(nearest)]) > 0.8


def test_there_is_no_map_of_few_scans(tmp_path):
    assert not representation.maps(write_representation(tmp_path / "r.npz", persons=2), ["t1n", "t2w"])


def test_wide_cohort_is_summed_up():
    rows = [
        {"split": "training", "subject": f"s{k}", "person": f"p{k // 2}", "t1n": "1", "t2w": str(k % 2)}
        for k in range(300)
    ]
    (side,) = cohort.sides(rows, ["t1n", "t2w"])
    assert (side.subjects, side.persons, side.kinds) == (300, 150, 2)
    assert [strip.count for strip in side.strips] == [300, 150]
    assert not side.strips[0].cells
    assert dict(side.combinations) == {"t1n": 150, "t1n t2w": 150}
    (small,) = cohort.sides(rows[:5], ["t1n", "t2w"])
    assert small.strips[1].cells[1] == ("s1", True)


def result(rows):
    return Results({"modalities": ["t1n", "t2w"], "protocol": "strict", "split_hash": "x" * 64, "seed": 0}, tuple(rows))


def row(method, mean, ci95=(0.0, 1.0), group="pair", given=("t1n",), target="t2w"):
    return Row("strict", group, method, given, target, "foreground", "psnr", mean, 1.0, ci95, 4, 0)


def test_heat_map_marks_losses():
    rows = [row("model", 20.0), row("model-lookup", -1.0, (-2.0, -0.5)), row("model-identity", 2.0, (1.0, 3.0))]
    model, lookup, identity = tables.squares(result(rows), "strict", "psnr")
    cell = model.rows[0][1][1]
    assert (cell.text, cell.verdict) == ("20.00", "loses")
    assert (lookup.rows[0][1][1].text, lookup.rows[0][1][1].below) == ("−1.00", "−2.00, −.50")
    assert identity.rows[0][1][1].verdict == "wins"
    assert lookup.title == "model − lookup"


@pytest.mark.parametrize(("part", "colour"), [(0.0, "#ffffff"), (1.0, "#102030"), (0.5, "#889098")])
def test_mix(part, colour):
    assert tables.mix("#102030", part) == colour


def run_of(name, values):
    scores = [
        Score("strict", "model", ("t1n",), target, "foreground", "psnr", value, f"s{k}", f"p{k}")
        for k, value in enumerate(values)
        for target in ("t2w", "t1n")
    ]
    return Run(name, result([row("model", 1.0, group="off-diagonal")]), scores, {}, {}, [], None, None)


def test_runs_are_compared_by_paired_differences():
    first, other = run_of("a", [10.0, 20.0, 30.0]), run_of("b", [11.0, 21.5, 31.5, 99.0])
    rows = tables.compare([first, other], "strict")
    assert rows[0].difference.text == "–"
    assert (rows[1].difference.text, rows[1].difference.verdict) == ("+1.33", "wins")
    other.results.head["split_hash"] = "another"
    assert not tables.compare([first, other], "strict")[1].comparable
    assert tables.compare([first, other], "strict")[1].difference.text == "–"
