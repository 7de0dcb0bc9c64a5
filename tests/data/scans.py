"""Scans and cohorts made by script for the tests of `medprism.data`."""

from dataclasses import replace

import nibabel as nib
import numpy as np

from medprism.data.cohort import Cohort, Subject
from medprism.io.grid import Grid
from medprism.io.nifti import new_scan, save_like


def head(shape=(30, 34, 28), seed=0, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), turn=0.0, scale=100.0):
    """A smooth ellipsoid 20 × 22 × 16 mm around (15, 17, 14) mm of world space; exactly zero outside."""
    affine = np.diag([*spacing, 1.0])
    c, s = np.cos(turn), np.sin(turn)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = origin
    grid = Grid(shape, affine)
    x, y, z = np.moveaxis(grid.world(np.moveaxis(np.indices(shape), 0, -1)), -1, 0)
    within = ((x - 15) / 10) ** 2 + ((y - 17) / 11) ** 2 + ((z - 14) / 8) ** 2 < 1
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    tissue = 3 + np.sin(x / 3 + phase[0]) + np.sin(y / 4 + phase[1]) + 0.5 * np.sin(z / 3 + phase[2])
    return new_scan((scale * tissue * within).astype(np.float32), grid)


def body(shape=(30, 34, 28), **options):
    """The same ellipsoid in HU, around −100 to 400, in air."""
    scan = head(shape, **options)
    return new_scan(np.where(scan.array > 0, scan.array - 250, -1000).astype(np.float32), scan.grid)


def lesion(grid, value):
    """A label: a box of `value` in the middle."""
    label = np.zeros(grid.shape, np.uint8)
    x, y, z = (n // 2 for n in grid.shape)
    label[x - 3 : x + 3, y - 4 : y + 2, z - 2 : z + 2] = value
    return new_scan(label, grid)


def write_cohort(root, **changes):
    """Five subjects with holes: a label numbered otherwise, a 4-D file, a coarse scan, a class and a site."""
    for k in range(1, 6):
        save_like(head(seed=k).array, head(), root / f"s{k}/t1.nii.gz", kind="image")
    for k in (1, 2):
        save_like(head(seed=10 + k).array * k, head(), root / f"s{k}/t2.nii.gz", kind="image")
    coarse = head((15, 17, 14), seed=13, spacing=(2, 2, 2), origin=(0.5, 0.5, 0.5))
    save_like(coarse.array, coarse, root / "s3/t2.nii.gz", kind="image")
    two = np.stack([head(seed=20).array, head(seed=21).array], axis=-1)
    nib.save(nib.Nifti1Image(two, np.eye(4)), root / "s4/all.nii.gz")
    save_like(body().array, body(), root / "s5/ct.nii.gz", kind="image")
    for k in (1, 2, 5):
        label = lesion(head().grid, 4)
        save_like(label.array, label, root / f"s{k}/seg.nii.gz", kind="label")
    training = (
        Subject("s1", "p1", {"t1n": "s1/t1.nii.gz", "t2w": "s1/t2.nii.gz"}, seg="s1/seg.nii.gz", site="A"),
        Subject("s2", "p1", {"t1n": "s2/t1.nii.gz", "t2w": "s2/t2.nii.gz"}, seg="s2/seg.nii.gz", class_label=1),
        Subject("s3", "p3", {"t2w": "s3/t2.nii.gz", "t1n": "s3/t1.nii.gz"}),
    )
    cohort = Cohort(
        name="five",
        modalities=("t1n", "t2w", "ct"),
        labels={"background": 0, "lesion": 3},
        regions={"all": [3]},
        root=root,
        training=training,
        validation=(Subject("s4", "p4", {"t1n": "s4/all.nii.gz#1"}),),
        test=(Subject("s5", "p5", {"ct": "s5/ct.nii.gz"}, seg="s5/seg.nii.gz"),),
        label_map={4: 3},
    )
    return replace(cohort, **changes)
