import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import medprism

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "medprism"
NAME = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_has_everything_that_the_package_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    assert held == {name for name in here if "__pycache__" not in name}
    for name in (
        "py.typed",
        "data/splits_sts.json",
        "report/templates/report.html.j2",
        "configs/pretrain/quickstart.yaml",
    ):
        assert f"medprism/{name}" in held


def test_wheel_runs_where_the_source_is_not(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import medprism; from medprism.options import shipped;"
        "print(medprism.__file__); print(shipped('pretrain', ['--config', 'quickstart'])[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    for line in done.stdout.splitlines():
        assert Path(line).is_relative_to(tmp_path)
        assert Path(line).exists()


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    return [*project["project"]["dependencies"], *project["dependency-groups"]["dev"], *itertools.chain(*extras)]


def test_every_requirement_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert all("==" in line for line in pins)
    assert "torch==2.13.0" in pins
    assert {plain(line) for line in requirements()} <= {plain(line) for line in pins}


def test_every_requirement_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for requirement in requirements():
        naming = [line for line in lines if f'"{requirement}"' in line]
        assert any(line.partition("#")[2].strip() for line in naming), requirement


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == medprism.__version__
    assert citation["license"] == "Apache-2.0"
    assert f"{medprism.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_large_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    large = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in files if path.is_file()}
    large = {name: size for name, size in large.items() if size > 1_000_000}
    assert list(large) == ["src/medprism/builtin/brain-phantom/model.safetensors"]
    assert max(large.values()) < 25_000_000


def plain(requirement: str) -> str:
    found = NAME.match(requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")
