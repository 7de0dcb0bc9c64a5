"""Imports every module of medprism; the packages named as arguments are hidden first, as if they were not installed.

python tests/import_all.py distributed dask
"""

import importlib
import pkgutil
import sys


def import_all(hidden: list[str]) -> list[str]:
    """Names of all modules, each imported."""
    sys.modules.update(dict.fromkeys(hidden))  # None there makes Python refuse the import
    import medprism

    names = [module.name for module in pkgutil.walk_packages(medprism.__path__, "medprism.")]
    names.remove("medprism.__main__")  # it runs the command
    for name in names:
        importlib.import_module(name)
    return names


if __name__ == "__main__":
    print(f"{len(import_all(sys.argv[1:]))} modules imported")
