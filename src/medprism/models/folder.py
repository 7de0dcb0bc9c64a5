"""The model folder: `model.safetensors` + `model.json`, all that a network needs to be rebuilt offline.

Nothing in it is pickled. `model.json` (the card) carries the sha256 of the weights, so a folder of which one file was
changed, cut short or swapped is refused instead of run.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model as load_tensors
from safetensors.torch import save_model as save_tensors
from torch import nn

import medprism
from medprism.errors import UserError
from medprism.io.atomic import whole_file

FORMAT_VERSION = 1
WEIGHTS, CARD = "model.safetensors", "model.json"
COMES_ALONG = "builtin:"  # before the name of a model that the package brings
BUILTIN = Path(medprism.__file__).parent / "builtin"
# What inference cannot do without; all else in a card (metrics, split_hash, citation, …) is information.
REQUIRED = ("architecture", "modalities", "normalisers", "typical_scales", "spacing", "patch_size")


def save_model(folder: str | Path, network: nn.Module, card: Mapping[str, Any]) -> Path:
    """Writes a model folder; a model already there is replaced only once the new one is complete on disk.

    Args:
        folder: where to; made if needed. Other files in it are left alone.
        network: its `state_dict` is saved as it is (dtype, names), tied weights once.
        card: at least the keys of `REQUIRED`; `architecture` is what `medprism.models.build` takes. Non-finite numbers
            are stored as null, as JSON has none. `format_version`, `version` (of medprism) and `sha256` are added.

    Returns:
        The folder.

    Raises:
        ValueError: the card lacks one of `REQUIRED`.
        UserError: the folder cannot be written (no space, no right).
    """
    folder = Path(folder)
    if absent := [key for key in REQUIRED if key not in card]:
        raise ValueError(f"a model card needs {', '.join(REQUIRED)}; {', '.join(absent)} not given")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            weights, text = Path(temporary, WEIGHTS), Path(temporary, CARD)
            save_tensors(network, str(weights), metadata={"format": "pt"})
            full = {"version": medprism.__version__, **_plain(card)}
            full |= {"format_version": FORMAT_VERSION, "sha256": sha256(weights)}
            text.write_text(json.dumps(full, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            weights.chmod(text.stat().st_mode)  # safetensors writes for the owner alone
            for file in (weights, text):
                with file.open("rb+") as stream:
                    os.fsync(stream.fileno())
            os.replace(weights, folder / WEIGHTS)
            os.replace(text, folder / CARD)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the model folder {folder}: {error}; free space or choose another place"
        ) from error
    return folder


def find_model(path: str | Path) -> Path:
    """The model folder meant by `path`: itself, the `model` folder of a run, or, of `builtin:NAME`, the package's own.

    Raises:
        UserError: neither holds both files, or there is no such model.
    """
    if str(path).startswith(COMES_ALONG):
        return _builtin(str(path).removeprefix(COMES_ALONG))
    path = Path(path)
    for folder in (path, path / "model"):
        if (folder / CARD).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if not path.exists():
        raise UserError(f"expected a model or run folder, but {path} does not exist; give its path")
    for folder in (path, path / "model"):
        for there, gone in ((CARD, WEIGHTS), (WEIGHTS, CARD)):
            if (folder / there).is_file():
                raise UserError(f"{gone} is missing in {folder}, only {there} is there; copy the whole folder")
    raise UserError(
        f"expected a model folder ({WEIGHTS} + {CARD}) or a run folder with one in `model`, got {path}; "
        "give the --out of pretrain or finetune"
    )


def _builtin(name: str) -> Path:
    """The folder of a model that the package brings."""
    folders = {folder.name: folder for folder in sorted(BUILTIN.iterdir()) if (folder / CARD).is_file()}
    if name not in folders:
        known = " or ".join(COMES_ALONG + each for each in folders)
        raise UserError(f"expected {known}, got {COMES_ALONG}{name}; these are the models that come along")
    return folders[name]


def load_card(path: str | Path) -> dict[str, Any]:
    """The card of a model or run folder, checked for its format but without reading the weights.

    Raises:
        UserError: no model there, unreadable JSON, another format version, or a required key is missing.
    """
    file = find_model(path) / CARD
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"expected a model card in JSON, {file} is not ({error}); copy the model again") from error
    if not isinstance(card, dict) or card.get("format_version") != FORMAT_VERSION:
        came = card.get("format_version") if isinstance(card, dict) else type(card).__name__
        raise UserError(
            f"expected format_version {FORMAT_VERSION} in {file}, got {came}; "
            "use the version of medprism that wrote it, or save it again"
        )
    if absent := [key for key in (*REQUIRED, "sha256") if key not in card]:
        raise UserError(f"expected {', '.join(absent)} in {file}, which lacks it; copy the model again")
    return card


def add_to_card(path: str | Path, **items: Any) -> None:  # noqa: ANN401 - any JSON-like value
    """Write more into the card of a model, e.g. its metrics; the weights stay as they are.

    Raises:
        UserError: there is no sound model, or the card cannot be written.
    """
    card = {**load_card(path), **_plain(items)}
    with whole_file(find_model(path) / CARD) as file:
        file.write((json.dumps(card, indent=2, allow_nan=False) + "\n").encode())


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds a network from its folder alone, in evaluation mode on the CPU.

    Args:
        path: a model folder, or a run folder that contains `model/`.

    Returns:
        The network and its card.

    Raises:
        UserError: a file is missing, was altered or cut short, or does not fit this version of medprism.
    """
    from medprism import models  # here, as `build` knows every network while this module knows none

    folder, card, weights = find_model(path), load_card(path), sound_weights(path)
    try:
        network: nn.Module = models.build(card["architecture"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"cannot build the architecture named in {folder / CARD} ({error}); "
            f"it was written by medprism {card.get('version')}, this is {medprism.__version__}"
        ) from error
    try:
        load_tensors(network, weights, strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the weights in {weights} do not fit the architecture in {CARD}: {reason}") from error
    return network.eval(), card


def sound_weights(path: str | Path) -> Path:
    """The file of a model's weights, compared with the card's hash.

    Raises:
        UserError: there is no model, or the file was altered or cut short.
    """
    weights, card = find_model(path) / WEIGHTS, load_card(path)
    if (got := sha256(weights)) != card["sha256"]:
        raise UserError(
            f"expected sha256 {str(card['sha256'])[:12]}… for {weights}, got {got[:12]}…: "
            "the file was altered or cut short; copy the model again"
        )
    return weights


@dataclass(frozen=True)
class LoadReport:
    """What of a state dict went into a network.

    Attributes:
        matched: names in the network that were filled.
        missing: names in the network for which the state has nothing.
        unexpected: names in the state that the network has no place for.
        mismatched: names in both, of different shapes; not filled.
        fraction: filled share of the network's part in question, the smaller of the shares by tensors and by elements
            (norms and biases are many tensors and few elements, the stem is the reverse).
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    fraction: float

    def __str__(self) -> str:
        text = f"{len(self.matched)} matched ({100 * self.fraction:.1f} %)"
        for word in ("missing", "unexpected", "mismatched"):
            names: tuple[str, ...] = getattr(self, word)
            text += f", {len(names)} {word}"
            if names:
                text += f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        return text


def load_weights(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    minimum: float = 0.95,
    prefix: str | tuple[str, ...] = "",
    key_map: Mapping[str, str] | None = None,
) -> LoadReport:
    """Fills a network, or one part of it, from another network's state; all or, below `minimum`, nothing.

    Args:
        network: is changed in place; tensors are converted to its dtype and device.
        state: names to tensors.
        minimum: least `LoadReport.fraction`.
        prefix: only the network's names that begin so (such as `encoder.`, or one of several) are filled and counted.
        key_map: beginnings of names in `state` to beginnings of names in `network`; the longest that fits is used, and
            names that none fits stay as they are. `{"": "encoder."}` puts a bare encoder into a whole model.

    Returns:
        What matched, was missing, unexpected or of another shape; log it.

    Raises:
        UserError: less than `minimum` matched. The network is then unchanged.
    """
    own = network.state_dict()
    wanted = [name for name in own if name.startswith(prefix)]
    given = {_renamed(name, key_map or {}): (name, tensor) for name, tensor in state.items()}
    matched = [name for name in wanted if name in given and given[name][1].shape == own[name].shape]
    filled, both = set(matched), [name for name in wanted if name in given]
    elements = sum(own[name].numel() for name in wanted)
    report = LoadReport(
        matched=tuple(matched),
        missing=tuple(name for name in wanted if name not in given),
        unexpected=tuple(original for name, (original, _) in given.items() if name not in own),
        mismatched=tuple(name for name in both if name not in filled),
        fraction=min(len(matched) / max(len(wanted), 1), sum(own[name].numel() for name in matched) / max(elements, 1)),
    )
    if report.fraction < minimum:
        where = f"`{prefix}*`" if isinstance(prefix, str) and prefix else "its part of the network"
        raise UserError(f"expected at least {100 * minimum:.0f} % of {where} in the weights, got {report}")
    network.load_state_dict(own | {name: given[name][1] for name in matched}, strict=True)
    return report


def person_digests(persons: Iterable[str]) -> list[str]:
    """Sorted sha256 of person names: a card can tell whom a model has seen without naming them."""
    return sorted({hashlib.sha256(person.encode()).hexdigest() for person in persons})


def sha256(path: str | Path) -> str:
    """The sha256 of a file, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _renamed(name: str, key_map: Mapping[str, str]) -> str:
    fitting = [old for old in key_map if name.startswith(old)]
    if not fitting:
        return name
    old = max(fitting, key=len)
    return key_map[old] + name[len(old) :]


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON-like value
    """`value` made of what JSON has: no tuples, paths, NumPy or non-finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
