"""Whole files or none: a full disk, a crash within, permissions."""

import errno
import io
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from medprism.errors import UserError
from medprism.io import Grid, new_scan, save_like
from medprism.io.atomic import refuse_existing, whole_file, whole_folder


class FullDisk(io.FileIO):
    """A file on a disk that has room for 100 bytes, and tells so as late as systems do: when buffers are flushed."""

    def write(self, data):
        if self.tell() + len(data) > 100:
            super().write(bytes(data)[: max(0, 100 - self.tell())])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedWriter(FullDisk(path, mode.replace("b", ""))))


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("sidecar", [None, {"Synthetic": True}])
def test_no_space_left(tmp_path, full_disk, name, older, sidecar):
    array = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    if older:
        (tmp_path / name).write_bytes(b"older")
    with pytest.raises(
        UserError, match=rf"expected to write .*{name}, got 'No space left on device'.* free some space"
    ):
        save_like(
            *(array, new_scan(array, Grid((9, 9, 9), np.eye(4))), tmp_path / name),
            kind="image",
            force=True,
            sidecar=sidecar,
        )
    assert everything(tmp_path) == ([name] if older else [])
    if older:
        assert (tmp_path / name).stat().st_size == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_space_left_for_the_sidecar(tmp_path, full_disk):
    scan = new_scan(np.zeros((1, 1, 1), np.float32), Grid((1, 1, 1), np.eye(4)))
    with pytest.raises(UserError, match=r"expected to write .*out\.json"):
        save_like(scan.array, scan, tmp_path / "out.nii.gz", kind="image", sidecar={"Sources": ["a" * 200]})
    assert everything(tmp_path) == []


def test_appears_only_when_whole(tmp_path):
    file = tmp_path / "new" / "out.bin"
    with whole_file(file) as out:
        out.write(b"first ")
        assert not file.exists()
        out.write(b"second")
    assert file.read_bytes() == b"first second"
    assert everything(tmp_path) == ["new", "new/out.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_crash_leaves_the_older_file(tmp_path, error):
    file = tmp_path / "out.bin"
    file.write_bytes(b"older")
    with pytest.raises(error), whole_file(file) as out:  # noqa: PT012
        out.write(b"half")
        raise error
    assert file.read_bytes() == b"older"
    assert everything(tmp_path) == ["out.bin"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "out.bin") as out:
            out.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.bin").stat().st_mode) == 0o644


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"expected to write .* from the system; write elsewhere"),
        whole_file(tmp_path / "file" / "out.bin"),
    ):
        pass


def test_refuse_existing(tmp_path):
    file = tmp_path / "out.bin"
    refuse_existing(file, force=False)
    file.write_bytes(b"")
    refuse_existing(file, force=True)
    with pytest.raises(UserError, match=r"out\.bin not to exist yet"):
        refuse_existing(file, force=False)
    with pytest.raises(UserError, match="got the folder"):
        refuse_existing(tmp_path, force=True)


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path):
    out = tmp_path / "deep" / "out"
    for content in ("old", "new"):
        with whole_folder(out) as folder:
            (folder / content).write_text(content)
            assert not (out / content).exists()
    assert everything(tmp_path) == ["deep", "deep/out", "deep/out/new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_nothing_new(tmp_path, error):
    with whole_folder(tmp_path / "out") as folder:
        (folder / "old").write_text("old")

    def fail(place):
        with whole_folder(place) as folder:
            (folder / "half").write_text("half")
            raise error

    for place in ("out", "deep/new"):
        with pytest.raises(error):
            fail(tmp_path / place)
    assert everything(tmp_path) == ["out", "out/old"]


def test_a_folder_that_cannot_be_moved_leaves_the_older_one(tmp_path, monkeypatch):
    with whole_folder(tmp_path / "out") as folder:
        (folder / "old").write_text("old")
    replace = os.replace

    def full(source, target):
        if str(source).endswith(".part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"No space left.*free some space"), whole_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert everything(tmp_path) == ["out", "out/old"]
