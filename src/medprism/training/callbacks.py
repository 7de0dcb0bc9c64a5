"""What happens at the end of each epoch: a line in the table, a checkpoint, the best model; and the progress bar."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medprism.errors import UserError
from medprism.io.atomic import whole_file
from medprism.training.run import PART, RunFolder

logger = logging.getLogger(__name__)


class MetricsTable(L.Callback):
    """`metrics.csv`: one row an epoch, rewritten whole, so that it is never cut short by a kill.

    A resumed run goes on after the last epoch that its checkpoint holds; rows behind it are dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._begun = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the rows of an earlier part of the run."""
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self.rows = [row for row in self.rows if int(row["epoch"]) < trainer.current_epoch]
        self._begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **values}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(time.perf_counter() - self._begun, 2)
        self.rows.append(row)
        if trainer.is_global_zero:
            text = io.StringIO()
            table = csv.DictWriter(text, list({name: None for row in self.rows for name in row}), lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
            with whole_file(self.path) as file:
                file.write(text.getvalue().encode())


class Checkpoints(L.Callback):
    """`best.ckpt` by validation score and `last.ckpt` after each epoch, each whole or not there.

    `last.ckpt` holds the best score and comes last: a run that is killed before it goes through the epoch again and
    finds the same best weights again. Without a score (in transfer: no validation subject has two scans) the latest
    are the best.

    Args:
        run: where to.
        metric: name of the score.
        save_model: writes the model folder from the module's weights and its validation score.
        world: number of training processes.
    """

    def __init__(self, run: RunFolder, metric: str, save_model: Callable[[float], None], world: int = 1) -> None:
        self.run, self.metric, self.save_model, self.world = run, metric, save_model, world
        self.best = self.latest = -math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what the epoch gave.

        Raises:
            UserError: the loss is not finite any more.
        """
        metrics = trainer.callback_metrics
        if not math.isfinite(float(metrics["train/loss"])):
            raise UserError(
                f"expected a finite loss, got {float(metrics['train/loss'])} in epoch {trainer.current_epoch}; lower "
                f"optimiser.lr, or set optimiser.clip; {self.run.last} keeps the epoch before"
            )
        score = float(metrics.get(f"val/{self.metric}", -math.inf))
        self.latest = score
        if score >= self.best:
            self.best = score
            self._save(trainer, self.run.best)
            if trainer.is_global_zero:
                self.save_model(score)
        self._save(trainer, self.run.last)

    def _save(self, trainer: L.Trainer, path: Path) -> None:
        part = path.with_suffix(PART)
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(part, path)
        except (OSError, RuntimeError) as error:  # of the system, or of torch's own writer
            part.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise UserError(
                f"expected to write {path}, got '{reason}'; free some space and go on with --resume auto"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, the latest, and how many processes there are."""
        return {"best": self.best, "latest": self.latest, "world": self.world}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them.

        Raises:
            UserError: there were more or fewer processes: a step would be of other samples, an epoch of other steps.
        """
        if (begun := state_dict.get("world", self.world)) != self.world:
            raise UserError(
                f"expected {begun} processes (devices times nodes), as {self.run.path} began with, got {self.world}; "
                "start as many, or begin anew with another --out or with --force"
            )
        self.best, self.latest = state_dict["best"], state_dict["latest"]


class ProgressBar(L.Callback):
    """One bar for the whole training, with the loss, the validation score and the time left.

    Where nobody watches (a log file, a batch system) it is a line an epoch instead.

    Args:
        steps: of the whole training.
        title: before the bar.
        metric: name of the score.
        unit: of the score.
    """

    def __init__(self, steps: int, title: str, metric: str, unit: str) -> None:
        self.steps, self.title, self.metric, self.unit = steps, title, metric, unit
        self._bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar at the step that the run has reached."""
        console = Console(stderr=True)
        if not trainer.is_global_zero or not console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            refresh_per_second=2,
        )
        self._bar.start()
        self._task = self._bar.add_task(self.title, total=self.steps, completed=trainer.global_step, told="")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:  # noqa: ANN401 - Lightning's hook
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the epoch's figures."""
        metrics = trainer.callback_metrics
        told = [f"loss {float(metrics['train/loss']):.3f}"] if "train/loss" in metrics else []
        if (name := f"val/{self.metric}") in metrics:
            told.append(f"val {self.metric} {float(metrics[name]):.{2 if self.unit else 3}f} {self.unit}".rstrip())
        if self._bar is not None:
            self._bar.update(self._task, told="  ".join(told))
        elif trainer.is_global_zero:
            logger.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(told))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar, after an error too."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
