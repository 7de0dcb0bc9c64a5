"""Prepared subjects in memory: what a cache and a model look like to the evaluation."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from medprism.data.intensity import DEFAULT_NORMALISERS, Scale
from medprism.models.folder import person_digests

SHAPE = (12, 14, 10)


@dataclass
class FakeEntry:
    subject: str
    person: str
    volumes: np.ndarray  # (M, X, Y, Z)
    masks: np.ndarray  # (M, X, Y, Z)
    present: tuple[bool, ...]
    scales: dict[str, Scale]
    site: str | None = None
    class_label: int | None = None
    segmentation: np.ndarray | None = None
    affine: np.ndarray = field(default_factory=lambda: np.diag([2.0, 2.0, 3.0, 1.0]))

    @property
    def shape(self):
        return self.volumes.shape[1:]

    def images(self):
        return self.volumes.copy()

    def foreground(self):
        return self.masks.copy()

    def label(self):
        return self.segmentation


class FakeCache:
    def __init__(self, modalities, splits, name="fake"):
        self.name, self.modalities, self.splits = name, tuple(modalities), splits
        self.recipe = SimpleNamespace(
            normalisers={m: DEFAULT_NORMALISERS[m] for m in modalities}, spacing=(2.0, 2.0, 3.0)
        )
        self.split_hash = "c0ffee"
        self.labels, self.regions = {}, {}

    def subjects(self, split):
        return list(self.splits.get(split, []))


class FakeModel:
    """Writes `law(source index, target index, source volume)` for each target."""

    def __init__(self, cache, law, path=Path("nowhere/model"), trained=None):
        self.law, self.path, self.calls = law, path, []
        persons = [e.person for e in cache.subjects("training")] if trained is None else trained
        self.card = {
            "modalities": list(cache.modalities),
            "normalisers": {m: n.to_dict() for m, n in cache.recipe.normalisers.items()},
            "split_hash": cache.split_hash,
            "training_persons": person_digests(persons),
            "sha256": "ab" * 32,
            "spacing": list(cache.recipe.spacing),
        }

    def predict(self, images, present):
        assert not images[~present].any()
        self.calls.append(present.tolist())
        given = np.flatnonzero(present)
        return np.stack(
            [np.mean([self.law(i, j, images[i]) for i in given], axis=0) for j in range(len(images))]
        ).astype(np.float32)

    def embed(self, images, present):
        return np.stack([[image.mean(), image.std(), float(i)] for i, image in enumerate(images)]).astype(np.float32)


def law(source, target, x):
    """The true relation in `cohort`: modality k is x₀ (k + 1) / 2 + k."""
    base = (x - source) * 2 / (source + 1)
    return base * (target + 1) / 2 + target


def entry(name, *, modalities=("t1n", "t1c", "t2w"), present=None, person=None, seed=0, noise=0.0):
    """A subject whose scans are affine functions of one another on a common box of foreground."""
    rng = np.random.default_rng([seed, *name.encode()])
    count = len(modalities)
    present = (True,) * count if present is None else present
    base = rng.normal(size=SHAPE)
    volumes = np.stack([law(0, k, base) + noise * rng.normal(size=SHAPE) for k in range(count)])
    mask = np.zeros((count, *SHAPE), bool)
    mask[:, 2:-2, 2:-2, 2:-2] = True
    volumes[~mask] = -4.0
    mask[~np.array(present)] = False
    volumes[~np.array(present)] = 0
    scales = {m: Scale(10.0, 100.0, -5, 5) for m, there in zip(modalities, present, strict=True) if there}
    return FakeEntry(name, person or name, volumes.astype(np.float32), mask, present, scales)


def cohort(*, training=4, test=4, modalities=("t1n", "t1c", "t2w"), noise=0.0):
    return FakeCache(
        modalities,
        {
            "training": [entry(f"train-{k}", modalities=modalities, noise=noise) for k in range(training)],
            "validation": [],
            "test": [entry(f"test-{k}", modalities=modalities, noise=noise) for k in range(test)],
        },
    )


LABELS = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}


class FakeOutliner:
    """Reads the label off the scans (see `outlined`) and hands it through `law(labels, given names)`."""

    def __init__(self, cache, law=lambda labels, given: labels, path=Path("nowhere/model")):
        self.law, self.path, self.calls = law, path, []
        self.modalities = cache.modalities
        self.labels, self.regions = dict(cache.labels), dict(cache.regions)
        self.classes = tuple(cache.labels.values())
        self.card = {**FakeModel(cache, None).card, "task": "segmentation"}

    def predict(self, images, present, foreground=None, affine=None):
        assert not images[~present].any()
        assert foreground.shape == images.shape[1:]
        given = tuple(name for name, here in zip(self.modalities, present, strict=True) if here)
        self.calls.append(given)
        labels = np.rint(images[present].mean(axis=0)).astype(int)
        return np.stack([self.law(labels, given) == value for value in self.classes]).astype(np.float32)


def outlined(name, *, present=None, person=None, modalities=("t1n", "t1c", "t2w"), empty=False):
    """A subject whose every scan shows its label: NCR in ET in ED; `empty` has none."""
    made = entry(name, modalities=modalities, present=present, person=person)
    label = np.zeros(SHAPE, np.uint8)
    if not empty:
        for value, (low, high) in zip((2, 3, 1), ((2, 8), (3, 7), (4, 6)), strict=True):
            label[low:high, low:high, low:high] = value
    made.volumes = (label * np.array(made.present)[:, None, None, None]).astype(np.float32)
    made.segmentation = label
    return made


def outlined_cohort(test, *, modalities=("t1n", "t1c", "t2w")):
    """The given test subjects, and some others for training."""
    train = [outlined(f"train-{k}", modalities=modalities) for k in range(2)]
    cache = FakeCache(modalities, {"training": train, "validation": [], "test": list(test)})
    cache.labels, cache.regions = LABELS, REGIONS
    return cache
