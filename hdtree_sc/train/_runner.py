"""scvi-tools' runner, with a history that loses nothing and checkpoints that a training can go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.train import TrainRunner

from hdtree_sc.train._checkpoint import ResumeCheckpoint
from hdtree_sc.train._resume import RunState
from hdtree_sc.train._trainer import TreeTrainer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class TreeTrainRunner(TrainRunner):
    """Keeps metrics that an earlier training of the same model did not have.

    Parameters
    ----------
    model
        The model.
    facts
        What a training that goes on from a checkpoint of this one must have in common with it.
    checkpoint_dir
        Folder of ``last.ckpt``; none is written without it.
    callbacks
        Further callbacks.
    **kwargs
        Keyword arguments of :class:`scvi.train.TrainRunner`.
    """

    _trainer_cls = TreeTrainer

    def __init__(
        self,
        model: Any,
        *,
        facts: Mapping[str, Any] | None = None,
        checkpoint_dir: str | Path | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> None:
        self.state = RunState(facts or {}, model.history_ if isinstance(model.history_, dict) else None)
        own = [self.state] if checkpoint_dir is None else [self.state, ResumeCheckpoint(checkpoint_dir)]
        given = callbacks if isinstance(callbacks, list | tuple) else [] if callbacks is None else [callbacks]
        # ours come first: a callback that fails at an epoch's start must not keep the checkpoint from being written
        super().__init__(model, callbacks=[*own, *given], **kwargs)

    def __call__(self) -> None:
        """Run training; the module is in evaluation mode after it, whatever happened."""
        try:
            super().__call__()
        finally:
            self.model.module.eval()

    def _update_history(self) -> None:
        if self.state.resumed and isinstance(self.model.history_, dict):
            self.model.history_ = self.state.before(self.model.history_)
        super()._update_history()
        known = self.model.history_
        if isinstance(known, dict):
            for name, values in (getattr(self.trainer.logger, "history", None) or {}).items():
                known.setdefault(name, values)
