"""Tiny fine-tunings for classification, with scans missing."""

from pathlib import Path

import numpy as np
import torch

from medprism import finetune
from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.io.nifti import save_like
from medprism.models import NetworkConfig
from medprism.models.classifier import ClassifierConfig
from medprism.training.fit import Compute
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from tests.data.scans import head

MODALITIES = ("t1n", "t2w")
BOTH, T1, T2 = MODALITIES, ("t1n",), ("t2w",)
HOLES = (T1, BOTH, T2, BOTH, T1, T2)
"""The scans of the training subjects, of which a third are missing; two for validation and two to test on have all."""

SMALL = {
    "network": NetworkConfig(width=4, levels=3, source="tagged"),
    "patches": PatchConfig(size=(16, 16, 16), per_subject=2, batch=2, validation=2),
    "classifier": ClassifierConfig(hidden=8, dropout=0.0),
    "optimiser": OptimiserConfig(lr=1e-2),
    "compute": Compute("cpu"),
    "epochs": 1,
    "seed": 3,
}


def make_classes(root: Path, without: tuple[str, ...] = ()) -> Path:
    """A prepared cohort of heads, of which those of class 5 have a hole; those `without` have no class."""
    subjects = []
    for number, present in enumerate((*HOLES, *[BOTH] * 4)):
        base, name, value = head(seed=number), f"s{number}", 5 if number % 2 else 2
        scan = base.array.copy()
        if value == 5:
            scan[12:18, 14:20, 11:17] = 20
        laws = {"t1n": scan, "t2w": np.where(scan > 0, 600 - scan, 0)}
        for modality in present:
            save_like(laws[modality].astype(np.float32), base, root / f"{name}/{modality}.nii.gz", kind="image")
        images = {modality: f"{name}/{modality}.nii.gz" for modality in present}
        subjects.append(Subject(name, name, images, class_label=None if name in without else value))
    parts = tuple(subjects[:6]), tuple(subjects[6:8]), tuple(subjects[8:])
    made = Cohort("heads", MODALITIES, {}, {}, root, *parts, classes={"holed": 5, "whole": 2})
    prepare(made, out=root / "cache", margin=2)
    return root / "cache"


def classify(cache: Path, out: Path, **changes) -> Path:
    """Fine-tune in this process, by the verb's function."""
    torch.set_num_threads(1)
    return finetune.finetune_classify(data=cache, out=out, **{**SMALL, **changes})
