"""Training on pairs of neighbours: defaults, schedule, interruption."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.model.base import UnsupervisedTrainingMixin

from hdtree_sc._errors import whole_number
from hdtree_sc.data import PairSplitter
from hdtree_sc.model._training_basics import TrainingBasics
from hdtree_sc.train import TreeTrainRunner

if TYPE_CHECKING:
    from collections.abc import Callable

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
        datasplitter_kwargs: dict[str, Any] | None,
        plan: dict[str, Any],
        plan_kwargs: dict[str, Any] | None,
        begin: Callable[[], None],
        trainer_kwargs: dict[str, Any],
        further: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train, and take what was learned so far where training is interrupted.

        Parameters
        ----------
        n_steps
            Steps of a default training of a small data set.
        least_epochs
            Fewest passes of a default training.
        max_epochs, batch_size, n_neighbors, datasplitter_kwargs, plan_kwargs, trainer_kwargs
            See :meth:`HDTree.train`.
        plan
            Defaults of ``plan_kwargs``.
        begin
            Called when all arguments have been found right, before anything is changed.
        further
            Further arguments of ``train`` that decide what is learned.
        **kwargs
            Further arguments of scvi-tools' ``train``.
        """
        n_train = self._check_training(
            max_epochs=max_epochs,
            batch_size=batch_size,
            datasplitter_kwargs=datasplitter_kwargs,
            strategy=trainer_kwargs.get("strategy"),
            n_validation=2,
            **{name: kwargs[name] for name in ("devices", "train_size", "validation_size", "early_stopping")},
        )
        whole_number("n_neighbors", n_neighbors)
        ckpt_path = trainer_kwargs.get("ckpt_path")
        if batch_size is None:
            batch_size = int(np.clip(2 ** int(np.log2(max(n_train, 8) / 4)), 4, 256 if n_train < 16_000 else 1024))
        facts = self._facts(
            "train", batch_size=batch_size, n_neighbors=n_neighbors, plan_kwargs=plan_kwargs or {}, **(further or {})
        )
        resumed = self._resumed(ckpt_path, facts)
        if max_epochs is None:
            default = int(np.clip(np.ceil(n_steps / np.ceil(n_train / batch_size)), least_epochs, 400))
            max_epochs = resumed.get("max_epochs", default)
        trainer_kwargs.setdefault("gradient_clip_val", 1.0)
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        splitter = {
            "represent": self._represent, "encoder_input": self._encoder_input, "n_neighbors": n_neighbors
        } | (datasplitter_kwargs or {})  # fmt: skip
        if resumed:
            # without a seed another one would be drawn
            splitter["external_indexing"] = [part.numpy() for part in resumed["split"].values()]
        begin()
        # scvi-tools leaves a trained module in evaluation mode, and Lightning keeps what it finds
        self.module.train()
        super().train(
            max_epochs=int(max_epochs),
            batch_size=int(batch_size),
            datasplitter_kwargs=splitter,
            plan_kwargs=plan | (plan_kwargs or {}),
            facts=facts,
            **kwargs,
            **trainer_kwargs,
        )
        if self.trainer.interrupted:
            warnings.warn("Training was interrupted: the tree is built from what was learned so far.", stacklevel=3)

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
