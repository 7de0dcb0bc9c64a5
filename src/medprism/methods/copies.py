"""Two copies of each scan of which parts are hidden: behind another scan of the subject, and behind a template.

BrainMVP (Rui et al. 2024, https://arxiv.org/abs/2410.10604), section 3.2. Which parts, and behind which scan, are
functions of (seed, occasion, sub-volume, modality): not of what else is in the batch, nor of the order of modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medprism.data.batch import Batch
from medprism.methods.masking import Masking, another_modality
from medprism.models.atlas import Size
from medprism.models.templates import Templates

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class Copies:
    """N scans, each in two copies.

    Attributes:
        owner: (N,) row of the batch of each.
        source: (N,) its modality.
        clean: (N, 1, X, Y, Z) as it is.
        f: (N, 1, X, Y, Z) parts hidden behind another scan, or behind the template.
        g: (N, 1, X, Y, Z) other parts hidden behind the template.
        hidden_f: (N, 1, X, Y, Z) bool, what is hidden in f.
        hidden_g: likewise in g.
    """

    owner: Tensor
    source: Tensor
    clean: Tensor
    f: Tensor
    g: Tensor
    hidden_f: Tensor
    hidden_g: Tensor


@dataclass(frozen=True)
class Copier:
    """Makes copies.

    Attributes:
        mask: what is hidden, drawn for each copy anew.
        modalities: M names in the order of the batch.
        seed: of the run.
    """

    mask: Masking
    modalities: tuple[str, ...]
    seed: int

    def __call__(
        self, batch: Batch, seen: Tensor, templates: Templates, when: int | str, *, crossing: bool = True
    ) -> Copies:
        """Two copies of scans; absent content is not read.

        Args:
            batch: B sub-volumes.
            seen: (B, M) bool, which of the present scans are copied; N in all.
            templates: of all modalities.
            when: epoch or occasion, with `batch.index` and the name of the modality the key of all draws.
            crossing: whether another scan of the subject, if there is one, hides the parts of copy f; otherwise the
                template does.

        Raises:
            UserError: a modality has no template, or a crop lies beyond them.
        """
        owner, source = seen.nonzero(as_tuple=True)
        clean = batch.images[seen][:, None]
        size: Size = tuple(clean.shape[2:])  # type: ignore[assignment]
        rows, modalities = owner.tolist(), source.tolist()
        keys = [(when, int(batch.index[row]), self.modalities[m]) for row, m in zip(rows, modalities, strict=True)]
        hidden_f, hidden_g = (
            self.mask(size, self.seed, [(f"hidden in {copy}", *key) for key in keys], clean.device) for copy in "fg"
        )
        place = torch.tensor(templates.index(self.modalities), device=source.device)
        template = templates(batch.affine[owner], size, place[source], [batch.subject[row] for row in rows])
        filling = self._other(batch, owner, source, template, keys) if crossing else template
        f, g = torch.where(hidden_f, filling, clean), torch.where(hidden_g, template, clean)
        return Copies(owner, source, clean, f, g, hidden_f, hidden_g)

    def one(self, batch: Batch, when: int | str) -> Tensor:
        """One present scan of each sub-volume, each as likely as another: (B, M) bool; arguments as of a call."""
        keys = [("scan", when, index) for index in batch.index.tolist()]
        none = torch.full((len(batch),), -1, device=batch.present.device)
        chosen, _ = another_modality(batch.present, none, self.modalities, self.seed, keys)
        return torch.zeros_like(batch.present).scatter_(1, chosen[:, None], True)

    def _other(self, batch: Batch, owner: Tensor, source: Tensor, template: Tensor, keys: Sequence[Key]) -> Tensor:
        """Another scan of each scan's subject, the template where there is none: (N, 1, X, Y, Z)."""
        keys = [("other", *key) for key in keys]
        chosen, some = another_modality(batch.present[owner], source, self.modalities, self.seed, keys)
        return torch.where(some[:, None, None, None, None], batch.images[owner, chosen][:, None], template)
