"""Templates of another run as what fills absent scans in a fine-tuning: checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medprism.data.cache import Cache, Entry
from medprism.errors import UserError, expect
from medprism.methods.masking import Size
from medprism.methods.template_copies import CopiesConfig, TemplateCopies
from medprism.models.filling import TEMPLATES, Filling
from medprism.models.folder import load_card
from medprism.models.templates import FOLDER, Templates, load_beside
from medprism.training.card import BRAINMVP
from medprism.training.run import plain
from medprism.training.start import check_recipe, refuse_test_persons


@dataclass(frozen=True)
class Fill:
    """Templates that a model is fine-tuned with.

    Attributes:
        templates: all of the run that they are from.
        config: what is done with them.
        modalities: of the cache.
        seen: digests of the persons that they were learned from.
    """

    templates: Templates
    config: CopiesConfig
    modalities: tuple[str, ...]
    seen: tuple[str, ...]

    @classmethod
    def of(cls, run: Path | None, config: CopiesConfig, cache: Cache) -> Fill | None:
        """The templates that are asked for, if any.

        Args:
            run: model or run folder with templates.
            config: what is done with them.
            cache: what is trained on.

        Raises:
            UserError: there are no templates or not one for each modality, intensities are normalised otherwise, or
                they were learned from a person of the test split.
        """
        if run is None:
            if config != CopiesConfig():
                raise UserError("expected --templates, a run with templates, with --copies, got none; name one")
            return None
        templates, card = load_beside(run), load_card(run)
        templates.index(cache.modalities)
        check_recipe(card, cache, other_modalities=True)
        refuse_test_persons(card, cache)
        return cls(templates, config, cache.modalities, tuple(card.get("training_persons", ())))

    def check(self, training: Sequence[Entry], validation: Sequence[Entry], size: Size, full: float) -> None:
        """Refuse what could not be trained.

        Args:
            training: subjects.
            validation: subjects.
            size: of the patches.
            full: share of the sub-volumes that are to be seen through all scans, which means nothing here.

        Raises:
            UserError: scans reach beyond the templates, masks do not fit the patches, or `full` is not 0.
        """
        expect(full == 0, "0 with --templates, which draw what is replaced", "the share `full`", full)
        filling = self.filling
        for entry in (*training, *validation):
            filling.require_cover(torch.from_numpy(entry.affine), entry.shape, f"the scans of {entry.subject}")
        if any(sum(entry.present) == 1 for entry in training):
            self.config.mask.check_size(size, "copies.mask")

    @property
    def filling(self) -> Filling:
        """The templates of the cache's modalities, frozen."""
        return Filling(self.templates, self.modalities)

    def copies(self, seed: int) -> TemplateCopies:
        """What makes the copies."""
        return TemplateCopies(self.filling, self.config.mask, self.modalities, seed)

    @property
    def settings(self) -> dict[str, Any]:
        """What the run's configuration says of it."""
        return {"templates": self.templates.identity, "copies": plain(self.config)}

    @property
    def card(self) -> dict[str, Any]:
        """What model.json says of it."""
        return {"fill": TEMPLATES, "templates": self.templates.identity, "citation": BRAINMVP}

    def beside(self, model: Path) -> None:
        """Write the templates into a model folder, all of them, so that they are the same as where they are from."""
        self.templates.save(model / FOLDER, force=True)
