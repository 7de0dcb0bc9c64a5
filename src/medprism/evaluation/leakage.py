"""Nothing gets where it must not: trained persons into scores, absent scans into outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medprism.errors import UserError
from medprism.models.folder import person_digests

if TYPE_CHECKING:
    from medprism.data.cache import Entry


def refuse_seen(card: Mapping[str, Any], entries: Sequence[Entry], *, split: str, split_hash: str) -> None:
    """Stop unless it is known that the model has seen none of these persons.

    The card's `training_persons` (digests of all persons that it was trained or chosen on, see `person_digests`)
    decide. A card without them is trusted only on the very split that it was trained under. The training split, and
    the validation split that the model was chosen on, may be scored on purpose; tables say so (`caution`).

    Args:
        card: of the model.
        entries: the subjects to be scored.
        split: the split that they are.
        split_hash: of the cache.

    Raises:
        UserError: a person was trained on, or nobody can know.
    """
    if split == "training" or (split == "validation" and card.get("split_hash") == split_hash):
        return
    trained = card.get("training_persons")
    if trained is None:
        if card.get("split_hash") != split_hash:
            raise UserError(
                f"expected a model trained under this split ({split_hash[:12]}…), got one of "
                f"{str(card.get('split_hash'))[:12]}… that does not say whom it was trained on; "
                "evaluate on the cohort it was trained with, or train it again"
            )
        return
    seen = [entry.subject for entry in entries if person_digests([entry.person])[0] in set(trained)]
    if seen:
        raise UserError(
            f"expected {split} subjects that the model has not seen, got {len(seen)} that it has "
            f"({', '.join(seen[:3])}{', …' if len(seen) > 3 else ''}); use the split it was trained under, "
            "or --split training to score them on purpose"
        )


def assert_no_leak(run: Callable[[Any, Any], Any], images: Any, *, seed: int = 0) -> None:  # noqa: ANN401 - see Args
    """Check that what a network or model makes of some scans does not depend on what stands in place of the others.

    For every subset of the modalities the absent ones are filled with zeros, noise, infinity and NaN; the outputs
    must be finite and identical bit for bit.

    Args:
        run: `(images, present) -> output`, such as `network.segment` or `model.predict`. Output: an array or a tensor,
            or several of them. It must be deterministic: a network in `eval()`.
        images: (M, X, Y, Z) array, with `present` (M,) bool; or (B, M, X, Y, Z) tensor, with `present` (B, M) bool.
        seed: of the noise.

    Raises:
        AssertionError: it does depend; the message names the subset and the filling.
    """
    batched = images.ndim == 5
    count = images.shape[1] if batched else images.shape[0]
    draw = np.random.default_rng(seed)
    for size in range(1, count):
        for given in combinations(range(count), size):
            here = np.isin(np.arange(count), given)
            # Each subject of a batch has its own subset: what one lacks must not come from another either.
            present = np.stack([np.roll(here, shift) for shift in range(images.shape[0])]) if batched else here
            absent = np.broadcast_to(~present[..., None, None, None], images.shape)
            before: list[NDArray[Any]] | None = None
            for name, filling in (("zeros", 0.0), ("noise", None), ("infinity", np.inf), ("NaN", np.nan)):
                noise = draw.normal(size=images.shape) if filling is None else filling
                filled = np.where(absent, noise, np.asarray(images)).astype(np.float32)
                outputs = _arrays(run(_like(images, filled), _like(images, present)))
                told = f"with modalities {given} given and the others filled with {name}"
                if not all(np.isfinite(output).all() for output in outputs):
                    raise AssertionError(f"expected finite outputs {told}, got others")
                if before is not None and not all(map(np.array_equal, before, outputs)):
                    raise AssertionError(f"expected the outputs of absent zeros {told}, got others")
                before = before or outputs


def _like(images: Any, values: NDArray[Any]) -> Any:  # noqa: ANN401 - an array or a tensor
    """Values as what `images` is; without it this module needs no torch."""
    if isinstance(images, np.ndarray):
        return values
    import torch

    return torch.from_numpy(values.copy()).to(images.device)


def _arrays(output: Any) -> list[NDArray[Any]]:  # noqa: ANN401 - an array, a tensor or several
    if isinstance(output, list | tuple):
        return [array for one in output for array in _arrays(one)]
    return [np.array(output.detach().cpu().numpy() if hasattr(output, "detach") else output)]
