"""Ways in which cohorts lie on disk: one module each, with `matches(root)` and `read(root)`."""

from pathlib import Path
from types import ModuleType

from medprism.data.layouts import autopet, bids, brats, flat, ibsi, msd, nnssl, nnunet
from medprism.data.layouts.found import Found, folders
from medprism.errors import UserError

LAYOUTS: tuple[ModuleType, ...] = (brats, nnunet, msd, bids, autopet, nnssl, ibsi, flat)
"""Every layout that is read; the last part of a module's name is the layout's name."""


def name_of(layout: ModuleType) -> str:
    """Name of a layout as the user writes it."""
    return layout.__name__.rpartition(".")[2]


def by_name(name: str) -> ModuleType:
    """The layout of that name.

    Raises:
        UserError: If there is none.
    """
    for layout in LAYOUTS:
        if name_of(layout) == name:
            return layout
    raise UserError(f"expected a layout (auto {' '.join(map(name_of, LAYOUTS))}), got {name!r}")


def detect(root: Path) -> ModuleType:
    """The one layout that a folder has.

    Raises:
        UserError: If it has none, or several.
    """
    found = [layout for layout in LAYOUTS if layout.matches(root)]
    if len(found) > 1:
        names = [name_of(layout) for layout in found]
        raise UserError(f"{root} looks like {' and '.join(names)}; say which with --layout {names[0]}")
    if not found:
        raise UserError(
            f"no scans found in {root} in any known layout ({' '.join(map(name_of, LAYOUTS))}); {_advice(root)}"
        )
    return found[0]


def read(root: Path, layout: str = "auto") -> tuple[Found, str]:
    """Read a folder.

    Args:
        root: The folder.
        layout: Name of a layout, or `auto`.

    Returns:
        What was found, and the layout's name.

    Raises:
        UserError: If the folder does not exist or holds no subject in that layout.
    """
    if not root.is_dir():
        raise UserError(f"expected a folder, {root} does not exist; check the path")
    module = detect(root) if layout == "auto" else by_name(layout)
    found: Found = module.read(root)
    if not found.subjects():
        raise UserError(f"no subject found in {root} in the layout {name_of(module)}; {_advice(root)}")
    return found, name_of(module)


def _advice(root: Path) -> str:
    for folder in (root, *folders(root)):
        if any(path.suffix.lower() in (".dcm", ".ima") for path in folder.iterdir()):
            return f"DICOM is there: convert it first, for example `dcm2niix -z y -o nifti {root}`"
    return "or lay it out as <subject>/<modality>.nii.gz, for example sub-001/t1n.nii.gz"
