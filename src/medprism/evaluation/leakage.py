"""A model is not scored on persons that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
