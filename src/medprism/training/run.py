"""The run folder: resolved configuration, logs, checkpoints, the model. What it was begun with, it goes on with."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from medprism.errors import UserError
from medprism.io.atomic import whole_file

logger = logging.getLogger(__name__)

Resume = Literal["auto", "never"]

LATER = {"fraction": 1.0}
"""Options that runs of older versions do not name, and what those did."""

PART = ".part"  # instead of .ckpt, of a checkpoint that is being written


class RunFolder:
    """A folder that holds one training.

    Files: `config.yaml`, `metrics.csv`, `tensorboard/`, `last.ckpt`, `best.ckpt`, `model/`, `done` at the end, and
    `templates.png` where templates are trained.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.last = path / "last.ckpt"
        self.best = path / "best.ckpt"
        self.model = path / "model"
        self.done = path / "done"

    @classmethod
    def open(cls, path: Path, config: dict[str, Any], *, resume: Resume, force: bool) -> RunFolder:
        """A run folder to begin in or to go on with.

        Args:
            path: the folder.
            config: the resolved configuration, plain JSON-like.
            resume: `auto` goes on where a run with the same configuration stopped; `never` begins anew.
            force: a run that is there may be deleted.

        Raises:
            UserError: a run is there and may be neither resumed nor deleted, its configuration differs, or a
                checkpoint of it is damaged.
        """
        run = cls(path)
        run.require_room(resume=resume, force=force)
        if run.config.exists() and resume == "auto":
            run._same(config)
            run._whole()
        elif path.exists() and any(path.iterdir()):
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        if not run.config.exists():
            with whole_file(run.config) as file:
                file.write(yaml.safe_dump(config, sort_keys=False).encode())
        return run

    def require_room(self, *, resume: Resume, force: bool) -> None:
        """Refuse a folder in which no run can begin or go on, whatever its configuration; arguments as of `open`.

        Raises:
            UserError: something is in the way, or the folder cannot be made or written to.
        """
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir():
            raise UserError(f"expected a folder to run in, got the file {there}; choose another --out")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"expected to write {self.path}, got no right to write to {there}; choose another --out")
        self._remove_leftovers()
        if (self.config.exists() and resume == "auto") or not self.path.exists() or not any(self.path.iterdir()):
            return
        if not force:
            raise UserError(f"expected an empty folder, got {self.path}; give --resume auto, --force or another --out")
        if not self.config.exists():
            raise UserError(f"expected a run to replace, got {self.path} without config.yaml; choose another --out")

    def _remove_leftovers(self) -> None:
        """Remove what a kill in the middle of writing left behind; only names that this package gives."""
        for part in (self.last, self.best):
            part.with_suffix(PART).unlink(missing_ok=True)
        from medprism.models.folder import CARD  # here, so that the help of verbs need not wait for torch

        names = (self.config.name, "metrics.csv", "templates.png", f"{self.model.name}/{CARD}")
        files = [self.path / name for name in names]
        for file in (*files, self.model / "templates/*.nii.gz"):
            for part in file.parent.glob(f".{file.name}.*.part"):
                part.unlink()
        for folder in (*self.model.glob(".saving-*"), *self.path.glob(".validation-*")):
            shutil.rmtree(folder)

    def _whole(self) -> None:
        """Refuse checkpoints that the disk cut short or changed: they are zip archives with a checksum of each part."""
        for file, other in ((self.last, self.best), (self.best, self.last)):
            if not file.exists():
                continue
            try:
                with zipfile.ZipFile(file) as archive:
                    damaged = archive.testzip()
            except (zipfile.BadZipFile, OSError) as error:
                damaged = str(error)
            if damaged:
                raise UserError(
                    f"expected a whole checkpoint, got a damaged {file} ({damaged}); copy {other.name} over it to go "
                    "on from there, or begin anew with --force"
                )

    def _same(self, config: dict[str, Any]) -> None:
        old = _flat(yaml.safe_load(self.config.read_text()))
        new = _flat(yaml.safe_load(yaml.safe_dump(config)))
        old = {**{key: value for key, value in LATER.items() if key in new}, **old}
        if changed := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
            told = "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in changed)
            raise UserError(f"expected the configuration that {self.path} began with, got other values: {told}")


def refuse_folder(out: Path, *, resume: Resume, force: bool) -> None:
    """Stop before anything is loaded if no run can be written there; of several processes the first looks.

    Raises:
        UserError: see `RunFolder.require_room`.
    """
    from lightning.pytorch.utilities import rank_zero_only  # here, so that the help of verbs need not wait for torch

    if getattr(rank_zero_only, "rank", 0) == 0:  # the others may begin when the first has made the folder
        RunFolder(out).require_room(resume=resume, force=force)


def plain(value: Any) -> Any:  # noqa: ANN401 - any configuration value
    """A configuration value as YAML can write it: dataclasses to dicts, tuples to lists, paths to strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
