import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "monai", "lightning", "nibabel", "scipy", "numpy", "rich", "jsonargparse")


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_version_is_there_without_anything_heavy() -> None:
    code = f"import sys, medprism; print(medprism.__version__, [m for m in {HEAVY} if m in sys.modules])"
    assert fresh(code).endswith(" []")


@pytest.mark.slow
def test_every_module_imports_without_the_extras() -> None:
    hidden = ["distributed", "dask", "onnx", "onnxscript", "onnxruntime", "fire", "pytest", "SimpleITK"]
    command = [sys.executable, str(ROOT / "tests/import_all.py"), *hidden]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = len([path for path in (ROOT / "src/medprism").rglob("*.py") if path.name != "__main__.py"])
    assert done.stdout == f"{modules - 1} modules imported\n"  # less the package itself
