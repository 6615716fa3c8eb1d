"""A checkpoint to go on from after a crash."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class ResumeCheckpoint(Callback):
    """Write ``last.ckpt`` every few epochs: weights, codebook, optimiser and schedule.

    The file is replaced in one step, so a crash while writing leaves the one before.

    Parameters
    ----------
    folder
        Where the file goes; made if need be.
    every_n_epochs
        Epochs between two checkpoints.
    """

    def __init__(self, folder: str | Path, *, every_n_epochs: int = 10) -> None:
        self.path = Path(folder) / "last.ckpt"
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write when it is time, and at the last epoch."""
        done = trainer.current_epoch + 1
        if done % self.every_n_epochs and done != trainer.max_epochs:
            return
        unfinished = self.path.with_suffix(".part")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, self.path)
