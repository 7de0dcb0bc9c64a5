"""The verb `export`: a trained model for programs that do not know medprism, or not its commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from medprism.errors import UserError

HOLDS = {
    "onnx": ("model.onnx", "model.onnx.data", "head.onnx", "model.json", "templates", "README.md"),
    "bundle": ("configs", "models", "docs"),
}
"""What an export has at most, on its first level; with --force nothing else is ever replaced."""
MARKS = (Path("model.onnx"), Path("configs", "metadata.json"))
"""A folder with one of them is an export."""


def export(model: Path, *, file_format: Literal["onnx", "bundle"], out: Path, force: bool = False) -> Path:
    """Write a trained model for other programs.

    As an ONNX graph it takes prepared windows and needs neither medprism nor torch; it is compared with the network on
    every subset of scans before it is kept. As a MONAI bundle it takes NIfTI files, and needs both.

    Args:
        model: folder of a model that synthesizes, segments or classifies, or of the run that made it.
        file_format: `onnx`: the network for one window, with what must be done before and after it; needs
            `pip install medprism[onnx]`. `bundle`: MONAI's layout, run by `python -m monai.bundle run`.
        out: folder to write.
        force: replace an earlier export.

    Returns:
        The folder.

    Raises:
        UserError: there is no such model, it does nothing yet, packages are missing, the folder is in the way, or the
            graph says something else than the network.
    """
    # Here, so that the help need not wait for torch.
    from rich.console import Console
    from rich.markup import escape

    from medprism.export import bundle, onnx_folder
    from medprism.inference.load import load
    from medprism.io.atomic import whole_folder

    out = Path(os.path.abspath(out))
    refuse_folder(out, force=force)
    if file_format == "onnx":
        onnx_folder.require_packages()
    loaded = load(model, "cpu")
    fill = onnx_folder.fill if file_format == "onnx" else bundle.fill
    with whole_folder(out) as folder:
        told = fill(loaded, folder)
    console = Console(highlight=False, soft_wrap=True)
    for line in (*told, f"wrote {out}"):
        console.print(escape(line))
    return out


def refuse_folder(out: Path, *, force: bool) -> None:
    """Stop if something is in the way that is not an earlier export, or is one and may not be replaced.

    Raises:
        UserError: so it is.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"expected a folder for the export, got the file {out}; choose another --out")
    there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if not there:
        return
    if not force:
        raise UserError(f"expected no folder {out} yet, but there is one; choose another --out or give --force")
    strange = [name for name in there if not any(name in names for names in HOLDS.values())]
    if strange or not any((out / mark).exists() for mark in MARKS):
        raise UserError(
            f"expected an earlier export to replace in {out}, got a folder with {(strange or there)[0]}; "
            "choose another --out"
        )
