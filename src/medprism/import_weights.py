"""The verb `import-weights`: a public checkpoint becomes a model folder that `finetune --init` takes."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from medprism.data.cache import Cache
from medprism.data.modalities import canonical
from medprism.data.recipe import Recipe
from medprism.errors import UserError
from medprism.models.folder import CARD, LoadReport, load_weights, person_digests, save_model, sha256
from medprism.models.foreign import Foreign, Layout, layout_of
from medprism.models.prism import Prism
from medprism.training.card import encoder_names

TASK = "start"  # of such a model: it does nothing yet

Origin = Literal["brainmvp", "swinunetr-ssl", "puir"]


def import_weights(
    checkpoint: Path,
    *,
    origin: Origin,
    out: Path,
    data: Path | None = None,
    modalities: list[str] | None = None,
    spacing: tuple[float, float, float] | None = None,
    patch_size: tuple[int, int, int] = (96, 96, 96),
    persons: Path | None = None,
    seed: int = 0,
    force: bool = False,
) -> Path:
    """Make a public checkpoint a model to fine-tune from.

    What of the network is not in it (the decoder, where pre-training had another one) starts fresh. It is said what
    matched and what did not; less than 95 % of the encoder is refused.

    Args:
        checkpoint: file of the release, as its authors saved it.
        origin: whose it is.
        out: model folder to write.
        data: prepared cohort to fine-tune on; modalities, normalisers and spacing are taken from it.
        modalities: of the model, in the order of its channels, without --data; by default those of the release, four
            MRI sequences or CT. The encoders take any, one scan at a time.
        spacing: voxel sides (X, Y, Z) in mm, without --data; by default those of each subject's reference scan.
        patch_size: sides of the patches in voxels.
        persons: text file with a person a line, of those that the weights were trained on; nobody is tested on them.
        seed: of the weights that start fresh.
        force: replace a model that is there.

    Returns:
        The model folder.

    Raises:
        UserError: the file is damaged, no weights, or those of another network, or less than 95 % matched.
    """
    out = Path(out)
    if out.is_file():
        raise UserError(f"expected a folder for the model, got the file {out}; choose another --out")
    if (out / CARD).exists() and not force:
        raise UserError(f"expected no model in {out} yet, but there is one; choose another --out or give --force")
    if data is not None and (modalities is not None or spacing is not None):
        raise UserError(
            "expected --modalities and --spacing without --data, which has its own, got both; leave one out"
        )
    cache = None if data is None else Cache.open(data)
    state = read_checkpoint(Path(checkpoint))
    layout = layout_of(state, origin, checkpoint)
    recipe = _recipe(cache, modalities or list(layout.modalities), spacing)
    foreign = layout.translate(state, recipe.modalities)
    if foreign.network.prior == "channel" and tuple(patch_size) != (96, 96, 96):
        raise UserError(
            f"expected 96,96,96 for patch_size with {origin}, whose prior is of that size, got {patch_size}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Prism(foreign.network, len(recipe.modalities), patch_size)
    encoder, rest = fill(network, foreign, checkpoint)
    card = _card(network, layout, recipe, cache)
    card["config"] = {"imported_from": origin, "checkpoint": Path(checkpoint).name, "sha256": sha256(checkpoint)}
    if persons is not None:
        card["training_persons"] = person_digests(filter(None, map(str.strip, _lines(persons))))
    save_model(out, network, card)
    _tell(encoder, rest, out)
    return out


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights in a file that `torch.save` wrote, whatever stands beside them; no code in it is run.

    Args:
        path: a file with the weights by name, or with them under `state_dict` or `model`.

    Returns:
        Weights by name, without the `module.` of parallel training.

    Raises:
        UserError: there is no such file, it is cut short, holds code or other things than weights.
    """
    if not path.is_file():
        raise UserError(f"expected a checkpoint, got nothing at {path}; check the path")
    scalar = np.float64(0).__reduce__()[0]  # scores beside the weights are often NumPy's; they are numbers, not code
    known: list[Any] = [argparse.Namespace, np.dtype, *{type(np.dtype(kind)) for kind in "fdil?"}]
    known += [(scalar, f"{place}.multiarray.scalar") for place in ("numpy.core", "numpy._core")]
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings(action="ignore"):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of the reader
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"expected a checkpoint of weights, could not read {path} ({reason}); download it again"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    weights = found if isinstance(found, Mapping) else {}
    state = {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    if not state:
        raise UserError(f"expected a checkpoint with weights by name, got {type(found).__name__} without in {path}")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def fill(network: Prism, foreign: Foreign, file: object) -> tuple[LoadReport, LoadReport]:
    """Put weights into a network.

    Args:
        network: of the shape that they fit; is changed.
        foreign: the weights.
        file: where they come from, for messages.

    Returns:
        What became of the encoder, and of all else.

    Raises:
        UserError: less than 95 % of the encoder matched.
    """
    try:
        encoder = load_weights(network, foreign.state, prefix=foreign.encoder)
    except UserError as error:
        raise UserError(f"{error} of {file}; is it another network or version?") from error
    others = tuple(name for name in network.state_dict() if not name.startswith(foreign.encoder))
    return encoder, load_weights(network, foreign.state, prefix=others, minimum=0)


def _recipe(cache: Cache | None, modalities: Sequence[str], spacing: tuple[float, float, float] | None) -> Recipe:
    if cache is not None:
        return cache.recipe
    names = [canonical(name) for name in modalities]
    if not names or len(set(names)) < len(names):
        raise UserError(f"expected modalities, each once, got {', '.join(modalities) or 'none'}")
    return Recipe.of(names, spacing=spacing)


def _card(network: Prism, layout: Layout, recipe: Recipe, cache: Cache | None) -> dict[str, Any]:
    scales = {} if cache is None else cache.typical_scales
    return {
        "task": TASK,
        "architecture": network.architecture,
        **recipe.to_dict(),
        "typical_scales": {name: scale.to_dict() for name, scale in scales.items()},
        "patch_size": list(network.patch_size),
        "size_divisor": network.divisor,
        "encoder_keys": encoder_names(network),
        "cohort": layout.cohort,
        "citation": layout.citation,
    }


def _lines(path: Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"expected a text file with a person a line, got another in {path}") from error


def _tell(encoder: LoadReport, rest: LoadReport, out: Path) -> None:
    fresh = (*rest.missing, *rest.mismatched)
    told = [
        f"encoder: {len(encoder.matched)} matched ({100 * encoder.fraction:.1f} %), {len(encoder.missing)} missing"
        f"{_first(encoder.missing)}, {len(encoder.mismatched)} of another shape{_first(encoder.mismatched)}",
        f"other parts: {len(rest.matched)} matched, {len(fresh)} start fresh{_first(fresh)}",
        f"not taken: {len(rest.unexpected)} of the checkpoint{_first(rest.unexpected)}",
        f"wrote {out}",
    ]
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in told:
        console.print(line)


def _first(names: Sequence[str]) -> str:
    """The parts that names belong to, the first few."""
    parts = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in names))
    return f" ({', '.join(parts[:4])}{', …' if len(parts) > 4 else ''})" if parts else ""
