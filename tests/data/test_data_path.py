import json
import subprocess
import sys
from pathlib import Path

import pytest

from medprism.data.cohort import Cohort, Subject
from medprism.io.nifti import save_like
from tests.data.scans import head, lesion


@pytest.mark.slow
def test_the_benchmark_measures_every_loader(tmp_path):
    subjects = []
    for name in ("a", "b"):
        for k, modality in enumerate(("t1n", "t2w")):
            save_like(head(seed=k).array, head(), tmp_path / f"{name}-{modality}.nii.gz", kind="image")
        save_like(lesion(head().grid, 1).array, head(), tmp_path / f"{name}-seg.nii.gz", kind="label")
        images = {modality: f"{name}-{modality}.nii.gz" for modality in ("t1n", "t2w")}
        subjects.append(Subject(name, name, images, seg=f"{name}-seg.nii.gz"))
    cohort = Cohort("two", ("t1n", "t2w"), {"background": 0, "lesion": 1}, {}, tmp_path, training=tuple(subjects))
    path = cohort.save(tmp_path / "cohort.json")
    out = tmp_path / "result.json"
    options = ["--cohort", path, "--patch", "16", "16", "12", "--rounds", "3", "--out", out]
    root, command = Path(__file__).parents[2], [sys.executable, "-m", "benchmarks", "data_path", *options]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert [row["loader"].split()[0] for row in result["rows"]] == ["medprism", "medprism,", *["monai"] * 4]
    assert all(row["least"] <= row["medprism_is_faster_by"] <= row["largest"] for row in result["rows"])
    assert result["rows"][0]["medprism_is_faster_by"] == 1
    assert (result["subjects"], result["options"]["seed"]) == (2, 0)
    assert {"cpu", "cores"} <= result["machine"].keys()
