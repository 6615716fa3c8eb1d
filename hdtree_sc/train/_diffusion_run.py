"""One training of a diffusion over cached points."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from hdtree_sc.train._runner import TreeTrainRunner

if TYPE_CHECKING:
    from hdtree_sc.train._diffusion_plan import DiffusionPlan

EPOCHS = 40
MAX_STEPS = 20_000
"""Steps of a default training of very many cells."""


def run_diffusion(
    model: Any, plan: DiffusionPlan, splitter: Any, max_epochs: int | None, **trainer_kwargs: Any
) -> None:
    """Train a diffusion, and keep what was learned so far where training is interrupted.

    Parameters
    ----------
    model
        The model, whose history grows.
    plan
        The plan.
    splitter
        Minibatches of points.
    max_epochs
        Number of epochs; None: 40, and fewer for very many cells.
    **trainer_kwargs
        Arguments of :class:`TreeTrainRunner`.
    """
    trainer_kwargs.setdefault("gradient_clip_val", 1.0)
    trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
    trainer_kwargs.setdefault("early_stopping_monitor", "diffusion_validation_loss")
    trainer_kwargs.setdefault("early_stopping_patience", 10)
    if max_epochs is None:
        max_epochs = int(np.clip(MAX_STEPS // len(splitter.train_dataloader()), 5, EPOCHS))
    runner = TreeTrainRunner(
        model, training_plan=plan, data_splitter=splitter, max_epochs=int(max_epochs), **trainer_kwargs
    )
    runner()
    if runner.trainer.interrupted:
        warnings.warn("Training was interrupted: the generator is what was learned so far.", stacklevel=3)
