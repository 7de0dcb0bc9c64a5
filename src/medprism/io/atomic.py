"""Files and folders that appear whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from medprism.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Stop before an output that exists is lost: call it before long work and again before writing.

    Raises:
        UserError: The path exists and `force` is False, or it is a folder.
    """
    if path.is_dir():
        msg = f"expected a file name to write to, got the folder {path}; name a file in it"
        raise UserError(msg)
    if path.exists() and not force:
        msg = f"expected {path} not to exist yet, but it does; remove it, choose another name or pass --force"
        raise UserError(msg)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside its place, and move it there when the block ends well.

    If the block raises, nothing stays and an older file under the name is untouched.

    Args:
        path: Where the file will be; missing folders are made.

    Yields:
        The open binary file.

    Raises:
        UserError: The system refused: no space, no permission, read-only.
    """
    # Not tempfile: its files are readable by their owner only, whatever the umask says.
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                yield file
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name beside its place, and move it there when the block ends well.

    If the block raises, nothing stays and an older folder under the name is untouched.

    Args:
        path: Where the folder will be; one that is there is replaced with all that it holds.

    Yields:
        The folder to fill.

    Raises:
        UserError: The system refused: no space, no permission, read-only.
    """
    part, old = (path.with_name(f".{path.name}.{uuid4().hex[:8]}.{word}") for word in ("part", "old"))
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.mkdir()
            yield part
            if path.exists():
                os.replace(path, old)
            try:
                os.replace(part, path)
            except OSError:
                if old.exists():
                    os.replace(old, path)
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                with suppress(OSError):
                    for parent in missing:
                        parent.rmdir()
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> UserError:
    elsewhere = "free some space or write elsewhere" if error.errno in FULL else "write elsewhere"
    return UserError(f"expected to write {path}, got '{error.strerror or error}' from the system; {elsewhere}")
