"""A checkpoint to go on from after a crash."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import LightningModule, Trainer


@contextmanager
def written_or_warned(path: Path) -> Iterator[None]:
    """A file that cannot be written within the block, as on a full disk, is warned of: training is worth more.

    Parameters
    ----------
    path
        The file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch says RuntimeError where the disk is full
        folder = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(folder).free / 1e6
        warnings.warn(
            f"checkpoint_dir: {path} could not be written ({error}); its disk has {free:,.0f} MB free. Training goes "
            "on, and the checkpoint before it, if there is one, stays.",
            stacklevel=3,
        )


class ResumeCheckpoint(Callback):
    """Write ``last.ckpt`` every few epochs: weights, codebook, optimiser, schedule, random numbers and history.

    The file is replaced in one step, so a crash while writing leaves the one before. What cannot be written is warned
    of, and tried again at the next turn.

    Parameters
    ----------
    folder
        Where the file goes; made if need be.
    every_n_epochs
        Epochs between two checkpoints.

    Raises
    ------
    ValueError
        If the folder cannot be made.
    """

    def __init__(self, folder: str | Path, *, every_n_epochs: int = 10) -> None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"checkpoint_dir: the folder {folder} cannot be made: {error}."
            raise ValueError(msg) from error
        self.path = Path(folder) / "last.ckpt"
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write when it is time: now the epoch before is over with all that it logs."""
        if trainer.current_epoch and trainer.current_epoch % self.every_n_epochs == 0:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write once more when all epochs are over; not when early stopping ended them, which is not written down."""
        if trainer.current_epoch == trainer.max_epochs:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        unfinished = self.path.with_suffix(".part")
        with written_or_warned(self.path):
            try:
                trainer.save_checkpoint(unfinished)
                if trainer.is_global_zero:
                    os.replace(unfinished, self.path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
