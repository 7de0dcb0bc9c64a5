"""How templates came about: their middle slices at some epochs of a training, as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from medprism.io.atomic import whole_file
from medprism.models.templates import Templates

PICTURE = "templates.png"
"""In the run folder."""

SIDE = 1.5  # of a slice in the picture, in inches


class TemplateSnapshots(L.Callback):
    """`templates.png`: a row for each modality, a column for each of about six epochs, drawn anew after each.

    What was seen before a kill comes back with the checkpoint, so it has to stand before what saves that.

    Args:
        path: of the picture.
        templates: of the objective.
        epochs: of the whole training.
        columns: how many, the start and the end among them.
    """

    def __init__(self, path: Path, templates: Templates, epochs: int, columns: int = 6) -> None:
        self.path, self.templates = path, templates
        self.wanted = {-(-part * epochs // (columns - 1)) for part in range(columns)}
        self.seen: dict[int, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what they begin as."""
        if trainer.current_epoch == 0:
            self._keep(0, trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what they have become, if it is time."""
        if trainer.current_epoch + 1 in self.wanted:
            self._keep(trainer.current_epoch + 1, trainer)

    def _keep(self, epoch: int, trainer: L.Trainer) -> None:
        volumes = self.templates.volumes.detach()
        self.seen[epoch] = volumes[..., volumes.shape[-1] // 2].half().cpu().clone()
        if trainer.is_global_zero:
            draw(self.path, self.templates.modalities, self.seen)

    def state_dict(self) -> dict[str, Any]:
        """Epoch -> slices (S, X, Y) in float16."""
        return {"seen": dict(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self.seen = dict(state_dict["seen"])


def draw(path: Path, modalities: tuple[str, ...], seen: dict[int, Tensor]) -> None:
    """Write the picture; each row has one grey scale.

    Args:
        path: PNG.
        modalities: S names.
        seen: epoch -> axial slices (S, X, Y), RAS+; the patient's right is on the left.
    """
    from matplotlib.figure import Figure  # here, so that other trainings need not wait for it

    slices = torch.stack(list(seen.values())).float().numpy()  # (epochs, S, X, Y)
    columns, rows, x, y = slices.shape
    figure = Figure(figsize=(SIDE * columns + 0.4, SIDE * rows * y / x + 0.3), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, name in enumerate(modalities):
        low, high = np.percentile(slices[:, row], (0.5, 99.5))
        for column, epoch in enumerate(seen):
            axes = panels[row, column]
            axes.imshow(slices[column, row].T[::-1, ::-1], cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title("start" if epoch == 0 else f"epoch {epoch}", fontsize=9)
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
