"""Scans in and out: NIfTI, grids in world space, resampling."""

from medprism.io.geometry import Grid, distance, inside, overlap, relation, require_same_space, resample, respaced
from medprism.io.nifti import Scan, check_informative, new_scan, read_label, read_scan, save_like

__all__ = [
    "Grid",
    "Scan",
    "check_informative",
    "distance",
    "inside",
    "new_scan",
    "overlap",
    "read_label",
    "read_scan",
    "relation",
    "require_same_space",
    "resample",
    "respaced",
    "save_like",
]
