"""The cohort file itself: JSON in, JSON out, and every complaint about its form."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medprism.data.modalities import canonical
from medprism.data.subject import Subject
from medprism.errors import UserError


def read_json(path: Path) -> Any:  # noqa: ANN401  (JSON is whatever it is; callers check)
    """Parse a JSON file.

    Raises:
        UserError: If it is missing, or not JSON; the message has line and column.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"expected the file {path}, it does not exist; check the path") from None
    except IsADirectoryError:
        raise UserError(f"expected a cohort file, got the folder {path}; name the cohort.json in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a JSON file, {path} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"expected JSON, {path} is malformed at line {error.lineno} column {error.colno}: {error.msg}"
        ) from None


def write(path: Path, content: dict[str, Any], *, force: bool) -> Path:
    """Write JSON beside the target and put it in place at once, so that no reader meets half a file.

    Raises:
        UserError: If the file exists and `force` is not set, or it cannot be written.
    """
    if path.exists() and not force:
        raise UserError(f"{path} exists already; choose another name or overwrite it with --force")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(_pretty(content), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
    return path


def read(path: Path, *, splits: Sequence[str]) -> dict[str, Any]:
    """Fields of a cohort from its file, ready for the constructor (all but `root`).

    Raises:
        UserError: If the form is wrong.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object with `modalities` and `training`, got a {type(content).__name__}")
    unknown = set(content) - {"name", "modalities", "labels", "regions", "label_map", "classes", "origin", *splits}
    if unknown:
        raise UserError(
            f"{path}: unknown key {min(unknown)!r}; a cohort has name, modalities, labels, {', '.join(splits)}"
        )
    names = _typed(content, "modalities", list, path)
    fields: dict[str, Any] = {
        "name": str(content.get("name", path.stem)),
        "modalities": tuple(canonical(str(name)) for name in names),
        "labels": _integers(_typed(content, "labels", dict, path), path),
        "regions": {str(k): _values(k, v, path) for k, v in _typed(content, "regions", dict, path).items()},
        "label_map": {
            _integer(old, "label_map", path): _integer(new, "label_map", path)
            for old, new in _typed(content, "label_map", dict, path).items()
        },
        "classes": _integers(_typed(content, "classes", dict, path), path),
        "origin": _typed(content, "origin", dict, path),
    }
    for split in splits:
        items = _typed(content, split, list, path)
        fields[split] = tuple(Subject.from_dict(item, f"{path}: {split}[{i}]") for i, item in enumerate(items))
    return fields


def _typed(content: dict[str, Any], key: str, kind: type, path: Path) -> Any:  # noqa: ANN401
    value = content.get(key, kind())
    if not isinstance(value, kind):
        raise UserError(f"{path}: expected {key!r} to be a {kind.__name__}, got {str(value)[:60]!r}")
    return value


def _integer(value: Any, key: str, where: Path | str) -> int:  # noqa: ANN401
    try:
        if isinstance(value, bool) or float(value) != int(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: expected whole numbers in {key!r}, got {value!r}") from None


def _integers(mapping: dict[str, Any], path: Path) -> dict[str, int]:
    return {str(name): _integer(value, str(name), path) for name, value in mapping.items()}


def _values(region: str, values: Any, path: Path) -> list[int]:  # noqa: ANN401
    if not isinstance(values, list):
        raise UserError(f"{path}: expected region {region!r} to be a list of label values, got {values!r}")
    return [_integer(value, region, path) for value in values]


def _pretty(content: dict[str, Any]) -> str:
    """JSON with one line per subject and per field: a file that people read and compare."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in value)
            lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
