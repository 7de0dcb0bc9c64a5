"""One prepared subject on disk: a folder of three chunked arrays, a table of foreground voxels and a description.

- `images.b2nd`: (present scans, X, Y, Z) int16, normalised intensities in steps of 2⁻¹⁰. The rounding error, at most
  0.0005 (a quarter of a HU), is far below the noise of any scan. float16 takes 10 to 25 % more space, errs up
  to four times as much, and NumPy needs ten times as long to make float32 of it; float32 takes twice the space.
- `foreground.b2nd`: (X, Y, Z), bit m is the foreground of modality m: one array to unpack instead of M.
- `label.b2nd`: (X, Y, Z) uint8 or uint16, only where the subject has a label.
- `centres.npy`: (K, 3) foreground voxels drawn at random once, so that a crop is placed without reading any image.
- `entry.json`: shape, affine, scales, and size and CRC-32 of the files above.

Arrays are compressed by blosc2 in cubes of 32³ voxels, of which a crop unpacks only those that it touches; by LZ4, as
the files are a third larger than by Zstandard and read a third faster. The folder appears whole, by renaming. Each
process compares a file with its CRC-32 (a millisecond) before it first reads it, so that a damaged one is never used.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import blosc2
import numpy as np
from numpy.typing import NDArray

from medprism.data.intensity import Scale
from medprism.data.randomness import rng
from medprism.data.volume import Volume
from medprism.errors import UserError
from medprism.io.grid import Grid

IMAGES, FOREGROUND, LABEL, CENTRES, ABOUT = "images.b2nd", "foreground.b2nd", "label.b2nd", "centres.npy", "entry.json"
UNFINISHED = ".unfinished-"
"""Begins the name of a folder that is being written."""

STEP = 2.0**-10  # of the stored intensities, which thus reach from −32 to 32
BLOCK = 32  # 64 kB of int16: fits the second-level cache; 16 reads slower, 48 unpacks more than a crop needs
CENTRES_KEPT = 4096

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Entry:
    """One prepared subject. Holds no open file, so it can be sent to loader processes.

    Attributes:
        folder: Where it is.
        modalities: Canonical names in the order of the channels.
        subject: Name, unique in the cohort.
        person: Who it is.
        site: Where it was scanned, or None.
        class_label: Class of the subject, or None.
        present: (M,) True = this scan exists.
        shape: (X, Y, Z) voxels.
        affine: (4, 4) float64, voxel -> world mm (RAS+).
        scales: Modality -> the normalisation of its scan; present ones only.
        background: (M,) normalised value of air; 0 where absent.
        files: File name -> (bytes, CRC-32).
    """

    folder: Path
    modalities: tuple[str, ...]
    subject: str
    person: str
    site: str | None
    class_label: int | None
    present: tuple[bool, ...]
    shape: Triple
    affine: NDArray[np.float64]
    scales: dict[str, Scale]
    background: NDArray[np.float32]
    files: dict[str, tuple[int, int]]
    _sound: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def load(
        cls,
        folder: Path,
        modalities: Sequence[str],
        *,
        subject: str,
        person: str,
        site: str | None = None,
        class_label: int | None = None,
    ) -> Entry:
        """Read the description of an entry and look whether its files have the right sizes.

        Raises:
            UserError: It is not there, or evidently damaged.
        """
        try:
            about = json.loads((folder / ABOUT).read_bytes())
            entry = cls(
                folder=folder,
                modalities=tuple(modalities),
                subject=subject,
                person=person,
                site=site,
                class_label=class_label,
                present=tuple(modality in about["scales"] for modality in modalities),
                shape=(int(about["shape"][0]), int(about["shape"][1]), int(about["shape"][2])),
                affine=np.array(about["affine"], dtype=np.float64),
                scales={name: Scale.from_dict(values) for name, values in about["scales"].items()},
                background=np.array([about["background"].get(name, 0.0) for name in modalities], np.float32),
                files={name: (int(size), int(crc)) for name, (size, crc) in about["files"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(folder, subject, f"{ABOUT} cannot be read ({error})") from error
        for name, (size, _) in entry.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise _damaged(folder, subject, f"{name} is missing or not of {size} bytes")
        return entry

    @property
    def grid(self) -> Grid:
        """Where its voxels are."""
        return Grid(self.shape, self.affine)

    @property
    def megabytes(self) -> float:
        """Size on disk, 10⁶ bytes."""
        return sum(size for size, _ in self.files.values()) / 1e6

    @property
    def labelled(self) -> bool:
        """Whether the subject has a label."""
        return LABEL in self.files

    @property
    def centres(self) -> NDArray[np.int64]:
        """(K, 3) some foreground voxels, K ≤ 4096, at least one."""
        self._require_sound(CENTRES)
        centres: NDArray[np.int16] = np.load(self.folder / CENTRES, allow_pickle=False)
        return centres.astype(np.int64)

    def images(self, start: Triple | None = None, size: Triple | None = None) -> NDArray[np.float32]:
        """Normalised intensities of a crop, or of the whole volume: (M, *size) float32, zero where absent.

        Args:
            start: First voxel, None for the first of the volume.
            size: Voxels, None for all from `start` on.

        Raises:
            UserError: The entry is damaged.
        """
        stored = self._read(IMAGES, start, size)
        if all(self.present):
            images = stored.astype(np.float32)
        else:
            images = np.zeros((len(self.present), *stored.shape[1:]), np.float32)
            images[np.array(self.present)] = stored
        images *= np.float32(STEP)
        return images

    def foreground(self, start: Triple | None = None, size: Triple | None = None) -> NDArray[np.bool_]:
        """Each scan's own foreground: (M, *size) bool, False where absent. Arguments and errors as for `images`."""
        bits = self._read(FOREGROUND, start, size)
        masks = np.left_shift(1, np.arange(len(self.present))).astype(bits.dtype)
        foreground: NDArray[np.bool_] = (bits & masks[:, None, None, None]) != 0
        return foreground

    def label(
        self, start: Triple | None = None, size: Triple | None = None
    ) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
        """Label: (*size) uint8 or uint16, or None without one. Arguments and errors as for `images`."""
        return self._read(LABEL, start, size) if self.labelled else None

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            UserError: One is damaged.
        """
        self._sound.clear()
        for name in self.files:
            self._require_sound(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sound": set()}  # another process, maybe another machine: checks for itself

    def _read(self, name: str, start: Triple | None, size: Triple | None) -> NDArray[Any]:
        start = start or (0, 0, 0)
        size = size or (self.shape[0] - start[0], self.shape[1] - start[1], self.shape[2] - start[2])
        window = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        self._require_sound(name)
        try:
            # Opening takes 0.05 ms. An array kept open would take a file handle per subject, and a memory map would
            # end the process, not raise, should a network file go away.
            stored = blosc2.open(str(self.folder / name), mode="r", dparams=blosc2.DParams(nthreads=1))
            crop: NDArray[Any] = stored[(..., *window)]
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(self.folder, self.subject, f"{name} cannot be unpacked ({error})") from error
        return crop

    def _require_sound(self, name: str) -> None:
        if name not in self._sound:
            try:
                content = (self.folder / name).read_bytes()
            except OSError as error:
                raise _damaged(self.folder, self.subject, f"{name} cannot be read ({error})") from error
            if (len(content), zlib.crc32(content)) != self.files[name]:
                raise _damaged(self.folder, self.subject, f"{name} does not match its checksum")
            self._sound.add(name)


def write_entry(folder: Path, volume: Volume, label: NDArray[Any] | None) -> None:
    """Write one prepared subject: into a folder beside, renamed when it is whole.

    Args:
        folder: Where it will be; what is there is replaced.
        volume: The prepared scans.
        label: (X, Y, Z) uint8 or uint16, or None.

    Raises:
        OSError: The system refused; nothing is left.
    """
    bits = (volume.foreground << np.arange(len(volume.present))[:, None, None, None]).sum(axis=0)
    contents = {
        IMAGES: _packed(np.rint(volume.images[volume.present] / np.float32(STEP)).astype(np.int16)),
        FOREGROUND: _packed(bits.astype(np.uint8 if len(volume.present) <= 8 else np.uint16)),
        CENTRES: _npy(_centres(np.not_equal(bits, 0))),
    }
    if label is not None:
        contents[LABEL] = _packed(label)
    about = {
        "shape": list(volume.grid.shape),
        "affine": volume.grid.affine.tolist(),
        "scales": {name: scale.to_dict() for name, scale in volume.scales.items()},
        "background": dict(zip(volume.scales, volume.background[volume.present].tolist(), strict=True)),
        "files": {name: [len(content), zlib.crc32(content)] for name, content in contents.items()},
    }
    contents[ABOUT] = json.dumps(about, indent=1).encode()
    unfinished = folder.with_name(f"{UNFINISHED}{uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        for name, content in contents.items():
            (unfinished / name).write_bytes(content)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _packed(array: NDArray[Any]) -> bytes:
    """A blosc2 array file: one chunk per modality and 64³ voxels, blocks of 32³."""
    leading = (1,) * (array.ndim - 3)
    chunk = tuple(min(2 * BLOCK, -(-n // BLOCK) * BLOCK) for n in array.shape[-3:])
    filters = [blosc2.Filter.SHUFFLE]
    options = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, filters=filters, nthreads=1)
    blocks = (*leading, BLOCK, BLOCK, BLOCK)
    # In memory first: then it is Python that writes the file, and a full disk is an error, not a short file.
    content: bytes = blosc2.asarray(
        np.ascontiguousarray(array), chunks=(*leading, *chunk), blocks=blocks, cparams=options
    ).to_cframe()
    return content


def _centres(mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Some voxels of a mask, evenly drawn."""
    found = np.flatnonzero(mask)
    if len(found) > CENTRES_KEPT:
        found = np.sort(rng(0, "centres", *mask.shape).choice(found, CENTRES_KEPT, replace=False))
    return np.stack(np.unravel_index(found, mask.shape), axis=1).astype(np.int16)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _damaged(folder: Path, subject: str, what: str) -> UserError:
    cache = folder.parent.parent
    return UserError(
        f"expected the prepared subject {subject} in {folder}, but {what}; "
        f"run `medprism prepare cohort.json --out {cache}` again, it rebuilds what is damaged"
    )
