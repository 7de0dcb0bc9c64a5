"""A cohort with labels and classes, and shipped sweeps, cut down to what trains in a second."""

import json
from pathlib import Path

import numpy as np
import yaml

from medprism.data.cohort import Cohort, Subject
from medprism.data.prepare import prepare
from medprism.io.nifti import save_like
from medprism.options import CONFIGS
from tests.data.scans import head, lesion

MODALITIES = ("t1n", "t2w")
CLASSES = {"even": 0, "odd": 1}
TINY = {"patches": {"size": [16, 16, 16], "per_subject": 2, "validation": 1, "batch": 2}}
SMALL_NETWORKS = {
    "network": {"width": 4, "levels": 3},
    "mmformer": {"width": 2, "dim": 16, "heads": 2, "mlp": 16},
    "teacher": {"width": 4},
    "student": {"width": 4},
    "acn": {"width": 8},
}


def labelled_cache(
    root: Path, training: int = 5, unlabelled: tuple[int, ...] = (), unclassified: tuple[int, ...] = ()
) -> Path:
    """Heads with a box as lesion, of two classes in turn; of the two to test on, one has no lesion."""
    subjects = []
    for number in range(training + 3):
        base, name = head(seed=number), f"s{number}"
        label = lesion(base.grid, 0 if number == training + 1 else 1)
        for modality, law in zip(MODALITIES, (base.array, 600 - base.array), strict=True):
            seen = np.where(base.array > 0, law + 300.0 * label.array, 0).astype(np.float32)
            save_like(seen, base, root / name / f"{modality}.nii.gz", kind="image")
        if number not in unlabelled:
            save_like(label.array, base, root / name / "seg.nii.gz", kind="label")
        seg = None if number in unlabelled else f"{name}/seg.nii.gz"
        value = None if number in unclassified else number % 2
        subjects.append(Subject(name, name, {m: f"{name}/{m}.nii.gz" for m in MODALITIES}, seg, class_label=value))
    sides = (subjects[:training], [subjects[-1]], subjects[training:-1])
    labels = {"background": 0, "lesion": 1}
    cohort = Cohort("labelled", MODALITIES, labels, {}, root, *map(tuple, sides), classes=CLASSES)
    return prepare(cohort, out=root / "cache", margin=2).path


def shipped(name: str) -> dict:
    content = yaml.safe_load((CONFIGS / "sweep" / f"{name}.yaml").read_text())
    plain: dict = json.loads(json.dumps(content))  # what YAML's anchors share is a copy for each
    return plain


def tiny(name: str, folder: Path) -> Path:
    """A shipped sweep whose bases have small patches, and a small network where that is pre-trained."""
    content = shipped(name)
    base = content["base"]
    made = {}
    for stage, config in ({"pretrain": base} if isinstance(base, str) else base).items():
        made[stage] = str(_small(stage, config, folder))
    for variant in content["variants"].values():
        stages = {"pretrain": variant} if isinstance(base, str) else variant
        for stage, changes in stages.items():
            if isinstance(changes, dict):
                changes.pop("epochs", None)  # so that --epochs counts
            if isinstance(changes, dict) and "config" in changes:
                changes["config"] = str(_small(stage, changes["config"], folder))
            for option in ("medmap.modality", "puir.anchor_modality"):
                if isinstance(changes, dict) and option in changes:
                    changes[option] = MODALITIES[-1]  # the sweeps' own is not among these
    content["base"] = made["pretrain"] if isinstance(base, str) else made
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))  # the first variant is what others are compared with
    return path


def _small(stage: str, config: str, folder: Path) -> Path:
    """A shipped configuration of a stage, with small patches and networks."""
    verb = "finetune segment" if stage == "teacher" else stage
    options = yaml.safe_load(CONFIGS.joinpath(*verb.split(), f"{config}.yaml").read_text())
    options["patches"] |= TINY["patches"]
    for name, shape in SMALL_NETWORKS.items():
        if name in options:
            options[name] |= shape
    path = folder / f"{verb.replace(' ', '-')}-{config}.yaml"
    path.write_text(yaml.safe_dump(options))
    return path
