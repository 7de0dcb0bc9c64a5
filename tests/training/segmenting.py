"""Tiny fine-tunings for segmentation, alone or in several processes."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from medprism import finetune
from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.io.nifti import save_like
from medprism.methods.segmentation import Segmentation
from medprism.models import NetworkConfig
from medprism.models.segmenter import SegmenterConfig
from medprism.training.choice import Choice
from medprism.training.fit import Compute
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from medprism.training.segment import train_segmentation
from tests.data.scans import head
from tests.training.runs import HOLES, MODALITIES

LABELS = {"background": 0, "rim": 1, "core": 4}
REGIONS = {"whole": [1, 4], "core": [4]}
TEST = f"s{len(HOLES) + 1}"
"""The subject to test on: it has all scans, as the one before it, for validation."""

SHAPE = NetworkConfig(width=4, levels=3)
SMALL = {
    "init": None,
    "part": "model",
    "segmentation": finetune.SegmentationConfig(),
    "segmenter": SegmenterConfig(deep_supervision=1),
    "network": SHAPE,
    "patches": PatchConfig(size=(16, 16, 16), per_subject=2, batch=2, validation=2, on_label=0.5, intensity=0.3),
    "optimiser": OptimiserConfig(lr=1e-3, average=0.9),
    "epochs": 4,
    "fraction": 1.0,
    "ship": "best",
    "compute": Compute("cpu"),
    "seed": 3,
}


def lesion(number: int, shape) -> np.ndarray:
    """A rim around a core, not always at the same place."""
    label, (x, y, z) = np.zeros(shape, np.uint8), (11 + number % 3, 13 + number % 4, 10)
    label[x : x + 7, y : y + 7, z : z + 7] = LABELS["rim"]
    label[x + 2 : x + 5, y + 2 : y + 5, z + 2 : z + 5] = LABELS["core"]
    return label


def make_labelled(root: Path, holes=HOLES, regions=REGIONS, without: tuple[str, ...] = ()) -> Path:
    """A prepared cohort of heads with lesions, which are bright; those `without` have no label."""
    subjects = []
    for number, present in enumerate((*holes, MODALITIES, MODALITIES)):
        base, name = head(seed=number), f"s{number}"
        label = lesion(number, base.array.shape)
        laws = {"t1n": base.array, "t2w": 600 - base.array, "t2f": 100 + base.array**2 / 500}
        for modality in present:
            scan = np.where(base.array > 0, laws[modality] + 60 * label, 0).astype(np.float32)
            save_like(scan, base, root / f"{name}/{modality}.nii.gz", kind="image")
        save_like(label, base, root / f"{name}/seg.nii.gz", kind="label")
        seg = None if name in without else f"{name}/seg.nii.gz"
        subjects.append(Subject(name, name, {m: f"{name}/{m}.nii.gz" for m in present}, seg=seg))
    sides = tuple(subjects[: len(holes)]), (subjects[-2],), (subjects[-1],)
    prepare(Cohort("lesions", MODALITIES, LABELS, regions, root, *sides), out=root / "cache", margin=2)
    return root / "cache"


def segment(cache: Path, out: Path, **changes) -> Path:
    """Fine-tune in this process, by the verb's function."""
    torch.set_num_threads(1)
    return finetune.finetune_segment(data=cache, out=out, **{**SMALL, **changes})


def tune(cache: Path, out: Path, **changes) -> Path:
    """Fine-tune in this process without the evaluation at the end."""
    torch.set_num_threads(1)
    options = {**SMALL, "resume": "never", "force": False, **changes}
    choice = Choice(**{field.name: options.pop(field.name) for field in fields(Choice) if field.name in options})
    return train_segmentation(data=cache, out=out, choice=choice, **options)


def segment_noting(cache: Path, out: Path, **changes) -> None:
    """Fine-tune as one of several processes, and leave a file `scored-<rank>` for each that scores the validation."""
    evaluate = finetune.evaluate

    def noted(*args, **kwargs):
        out.with_name(f"scored-{os.environ['RANK']}").touch()
        return evaluate(*args, **kwargs)

    finetune.evaluate = noted
    segment(cache, out, **changes)


def segment_worsening(cache: Path, out: Path, **changes) -> None:
    """Fine-tune with a validation score that falls in every epoch: the gates start at zero and train away from it."""
    Segmentation.scores = lambda self, network, batch: (
        -torch.stack([gate.weight.abs().sum() for gate in network.fusion.gates]).sum()[None]
    )
    segment(cache, out, **changes)
