"""Training on pairs of neighbours: defaults, schedule, interruption."""

from __future__ import annotations

import signal
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.model.base import UnsupervisedTrainingMixin

from hdtree_sc.data._splitter import PairSplitter
from hdtree_sc.model._training_basics import TrainingBasics
from hdtree_sc.train import ResumeCheckpoint, TreeTrainRunner

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class PairTrainingMixin(TrainingBasics, UnsupervisedTrainingMixin):
    """scvi-tools' training with a neighbour of each cell."""

    _data_splitter_cls = PairSplitter
    _train_runner_cls = TreeTrainRunner

    def _require_cells(self) -> None:
        """Refuse to train a model without cells, or of a query."""
        if self.adata is None:
            msg = "train() draws neighbours of cells, so the model needs them: load or make it with adata=."
            raise ValueError(msg)
        self._start_training()

    def _train_on_pairs(
        self,
        *,
        n_steps: int,
        least_epochs: int,
        max_epochs: int | None,
        batch_size: int | None,
        n_neighbors: int,
        checkpoint_dir: str | Path | None,
        datasplitter_kwargs: dict[str, Any] | None,
        trainer_kwargs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Train, and take what was learned so far where training is interrupted.

        Parameters
        ----------
        n_steps
            Steps of a default training of a small data set.
        least_epochs
            Fewest passes of a default training.
        max_epochs, batch_size, n_neighbors, checkpoint_dir, datasplitter_kwargs, trainer_kwargs
            See :meth:`HDTree.train`.
        **kwargs
            Further arguments of scvi-tools' ``train``.
        """
        n_train = int(round((kwargs["train_size"] or 0.9) * self.adata.n_obs))
        self._check_training(n_train, batch_size, kwargs["devices"], trainer_kwargs.get("strategy"))
        if n_neighbors < 1:
            msg = f"n_neighbors: {n_neighbors} given, a cell needs at least one neighbour."
            raise ValueError(msg)
        if batch_size is None:
            batch_size = int(np.clip(2 ** int(np.log2(max(n_train, 8) / 4)), 4, 256 if n_train < 16_000 else 1024))
        if max_epochs is None:
            max_epochs = int(np.clip(np.ceil(n_steps / np.ceil(n_train / batch_size)), least_epochs, 400))
        trainer_kwargs.setdefault("gradient_clip_val", 1.0)
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        if checkpoint_dir is not None:
            trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", []), ResumeCheckpoint(checkpoint_dir)]
        splitter = {
            "represent": self._represent, "encoder_input": self._encoder_input, "n_neighbors": n_neighbors
        } | (datasplitter_kwargs or {})  # fmt: skip
        # scvi-tools leaves a trained module in evaluation mode, and Lightning keeps what it finds
        self.module.train()
        interrupt_handler = signal.getsignal(signal.SIGINT)
        try:
            super().train(
                max_epochs=max_epochs,
                batch_size=batch_size,
                datasplitter_kwargs=splitter,
                **kwargs,
                **trainer_kwargs,
            )
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning turns Ctrl-C into exit(1) and leaves the signal ignored.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt_handler)
            if not bool(self.module.scaler.fitted) or (isinstance(stop, SystemExit) and stop.code != 1):
                raise
            warnings.warn("Training was interrupted: the tree is built from what was learned so far.", stacklevel=3)
            self.module.eval()
            self.is_trained_ = True

    def _represent(self, train_indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Principal components of all cells; the scaler is fitted on training cells the first time."""
        self._fit_before(train_indices)
        return self._expression_pca(self._batches(self.adata, None, None, None))

    @torch.inference_mode()
    def _encoder_input(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the encoder reads of all cells, and their library sizes: the scaler is fixed while training goes on."""
        module = self.module
        batches = self._batches(self.adata, None, None, None)
        x, library = self._over(batches, lambda tensors: module._encoder_input(tensors)[::2])
        return x, library
