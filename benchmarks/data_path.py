"""How many crops per second: a prepared cache against MONAI's transforms on the same scans, in the same run.

    python -m benchmarks data_path --out data_path.json
    python -m benchmarks data_path --cohort cohort.json --patch 64 64 32

Without a cohort, phantom brains at 1 mm are made (four scans and a label each). Every loader is asked for the same
number of crops of the same size, images and label, of complete subjects, in one process and with all files in memory
of the system. MONAI's transforms do as little as they can: load and crop. The cache's crops are moreover normalised,
placed around the foreground, flipped and turned, and come with foreground masks and affines.

- `medprism, no turns`: the same without flips and turns, which the others do not make either.
- `LoadImaged`: load, then RandSpatialCropd; one crop for each time that the files are read.
- `LoadImaged, N per load`: RandSpatialCropSamplesd; several crops of the same subject at once.
- `PersistentDataset`: whole loaded volumes on disk, uncompressed, then RandSpatialCropd.
- `CacheDataset`: whole loaded volumes in memory, then RandSpatialCropd: the limit, for cohorts that fit.
- `nnU-Net v2`, if it is installed: its blosc2 data set and loader, without augmentation, of the cache's own volumes.

The passes of all loaders alternate; medians over passes are reported, of the rates and of the ratios within a pass, as
other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import monai.data
import monai.transforms as mt
import numpy as np
import torch

from benchmarks.common import Way, alternate, parser, publish, ratios
from medprism.data.cache import Cache
from medprism.data.cohort import Cohort
from medprism.data.entry import Entry
from medprism.data.patches import PatchDataset
from medprism.data.prepare import prepare
from medprism.phantoms.cohort import write_brain_cohort

Pass = Callable[[], Iterable[object]]
PER_SUBJECT = 2  # crops of each subject in a pass, as in pre-training


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    monai.utils.set_determinism(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = options.cohort or write_brain_cohort(
            work / "scans", subjects=options.subjects, spacing=1.0, seed=options.seed
        )
        cohort = Cohort.load(path)
        entries = complete(prepare(cohort, out=work / "cache"), tuple(options.patch))
        plain = {"medprism, no turns": ours(entries, options, augment=False)}
        loaders = {"medprism": ours(entries, options), **plain, **theirs(cohort, entries, options, work)}
        rows = measure(loaders, PER_SUBJECT * len(entries), options.rounds)
    data = "the given cohort" if options.cohort else "phantom brains at 1 mm"
    columns = {
        "loader": "",
        "crops_per_second": ".2f",
        "medprism_is_faster_by": ".2f",
        "least": ".2f",
        "largest": ".2f",
    }
    publish(
        "data_path",
        options,
        rows,
        f"crops of {'×'.join(map(str, options.patch))}, {data}",
        columns,
        data=data,
        subjects=len(entries),
        volume=list(entries[0].shape),
        scans_per_subject=len(entries[0].present),
        cache_megabytes_per_subject=sum(entry.megabytes for entry in entries) / len(entries),
    )


def arguments() -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    made.add_argument("--cohort", type=Path, help="cohort.json; without it phantom brains are made")
    made.add_argument("--subjects", type=int, default=4, help="number of phantoms")
    made.add_argument("--patch", type=int, nargs=3, default=[96, 96, 96], help="voxels along X, Y, Z")
    return made.parse_args()


def complete(cache: Cache, patch: tuple[int, int, int]) -> list[Entry]:
    """Subjects that MONAI's transforms can take too: all scans, a label, and no side shorter than the patch."""
    entries = [e for e in cache.subjects() if all(e.present) and e.labelled and min(np.subtract(e.shape, patch)) >= 0]
    if not entries:
        raise SystemExit(f"no subject with all scans, a label and at least {patch} voxels; choose a smaller --patch")
    return entries


def ours(entries: list[Entry], options: argparse.Namespace, *, augment: bool = True) -> Pass:
    dataset = PatchDataset(
        entries, tuple(options.patch), patches_per_subject=PER_SUBJECT, seed=options.seed, augment=augment
    )
    epochs = iter(range(10**6))

    def one_pass() -> Iterable[object]:
        epoch = next(epochs)
        return (dataset[epoch, index] for index in range(len(dataset)))

    return one_pass


def theirs(cohort: Cohort, entries: list[Entry], options: argparse.Namespace, work: Path) -> dict[str, Pass]:
    """MONAI's loaders over the files of the same subjects."""
    by_name = {subject.subject: subject for subject in cohort.subjects()}
    files = []
    for entry in entries:
        subject = by_name[entry.subject]
        label = subject.label_for(cohort.modalities[0])
        assert label is not None
        paths = {**subject.images, "label": label}
        files.append({key: str(cohort.path(path)) for key, path in paths.items()})
    keys = [*cohort.modalities, "label"]
    load = mt.LoadImaged(keys, ensure_channel_first=True)
    crop = mt.RandSpatialCropd(keys, options.patch, random_size=False)
    several = mt.RandSpatialCropSamplesd(keys, options.patch, num_samples=PER_SUBJECT, random_size=False)
    once = monai.data.Dataset(files, mt.Compose([load, crop]))
    samples = monai.data.Dataset(files, mt.Compose([load, several]))
    disk = monai.data.PersistentDataset(files, mt.Compose([load, crop]), cache_dir=work / "persistent")
    memory = monai.data.CacheDataset(files, mt.Compose([load, crop]), progress=False)

    def each(dataset: torch.utils.data.Dataset[object], times: int) -> Pass:
        return lambda: (dataset[index] for _ in range(times) for index in range(len(files)))

    loaders: dict[str, Pass] = {
        "monai LoadImaged": each(once, PER_SUBJECT),
        f"monai LoadImaged, {PER_SUBJECT} per load": lambda: chain.from_iterable(each(samples, 1)()),
        "monai PersistentDataset": each(disk, PER_SUBJECT),
        "monai CacheDataset": each(memory, PER_SUBJECT),
    }
    if find_spec("nnunetv2"):
        loaders["nnU-Net v2"] = nnunet(entries, options, work / "nnunet")
    return loaders


def nnunet(entries: list[Entry], options: argparse.Namespace, folder: Path) -> Pass:
    """nnU-Net's loader over the same prepared volumes, in the layout and with the parameters that it writes."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    folder.mkdir()
    for entry in entries:
        label = entry.label()
        assert label is not None
        images, size = np.ascontiguousarray(entry.images(), np.float32), tuple(options.patch)
        blocks, chunks = comp_blosc2_params(images.shape, size)
        places = {1: np.argwhere(label[None] > 0)[:10000]}
        nnUNetDatasetBlosc2.save_case(
            images,
            label[None].astype(np.int16),
            {"class_locations": places},
            str(folder / entry.subject),
            chunks,
            blocks,
        )
    labels = SimpleNamespace(all_labels=[1], has_ignore_label=False)
    loader = nnUNetDataLoader(nnUNetDatasetBlosc2(str(folder)), 1, size, size, labels)
    return lambda: (loader.generate_train_batch() for _ in range(PER_SUBJECT * len(entries)))


def measure(loaders: dict[str, Pass], crops: int, rounds: int) -> list[dict[str, object]]:
    """Crops per second of each loader over rounds; a first pass is not counted."""

    def whole(one_pass: Pass) -> Way:
        def way() -> None:
            seen = sum(1 for _ in one_pass())
            assert seen == crops, (seen, crops)

        return way

    ways = {name: whole(one_pass) for name, one_pass in loaders.items()}
    for way in ways.values():
        way()
    seconds = {name: times["clock"] for name, times in alternate(ways, rounds).items()}
    rows: list[dict[str, object]] = []
    for name, own in seconds.items():
        gain = ratios(own, seconds["medprism"])
        faster = {"medprism_is_faster_by": gain.pop("faster_by"), **gain}
        rows.append({"loader": name, "crops_per_second": crops / median(own), **faster})
    return rows


if __name__ == "__main__":
    main()
