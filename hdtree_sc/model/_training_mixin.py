"""Training of tree models: split, neighbours, schedule, interruption, final tree."""

from __future__ import annotations

import signal
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import settings
from scvi.model.base import UnsupervisedTrainingMixin

from hdtree_sc.data._neighbors import nearest_neighbors
from hdtree_sc.data._splitter import PairSplitter
from hdtree_sc.model._training_basics import TrainingBasics
from hdtree_sc.model._tree_builder import BUILDERS, TreeBuilder, build_tree
from hdtree_sc.train import ResumeCheckpoint, TreeTrainingPlan, TreeTrainRunner

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TARGET_STEPS = 800
"""Steps that a default training takes on a small data set."""
HELD_OUT_CELLS = 5_000
"""Splits are checked on at most so many validation cells."""


class TreeTrainingMixin(TrainingBasics, UnsupervisedTrainingMixin):
    """scvi-tools' training with pairs of neighbours, and a tree at its end."""

    _data_splitter_cls = PairSplitter
    _training_plan_cls = TreeTrainingPlan
    _train_runner_cls = TreeTrainRunner

    @property
    def _min_cells(self) -> int:
        given = self._option("min_cells")
        return given if given is not None else int(np.clip(self.adata.n_obs // 20, 2, 10))

    @property
    def _max_leaves(self) -> int:
        # a leaf should hold some ten cells on average; those that are noise are found on held-out cells
        return int(np.clip(self.adata.n_obs // 10, 2, self._option("max_leaves")))

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,  # noqa: FBT001, FBT002
        batch_size: int | None = None,
        early_stopping: bool = False,  # noqa: FBT001, FBT002
        n_neighbors: int = 15,
        checkpoint_dir: str | Path | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train encoder, decoder and codebook together, then build the tree.

        Ctrl-C ends training early and leaves a usable model.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default about 800 steps, at least 30 and at most 400 passes.
        accelerator
            Lightning accelerator.
        devices
            Lightning devices.
        train_size
            Share of the cells trained on, 0.9 by default.
        validation_size
            Share of the cells validated on, the rest by default.
        shuffle_set_split
            Whether cells are shuffled before they are split.
        batch_size
            Cells in a minibatch, each with a neighbour; by default 256, less for fewer than 1,000 cells, up to 1,024
            for more than 16,000.
        early_stopping
            Whether to stop when ``validation_loss`` no longer falls.
        n_neighbors
            Expression neighbours from which a cell's positive is drawn; they never cross the split.
        checkpoint_dir
            Folder of ``last.ckpt``, written every tenth epoch. After a crash, set the model up in the same way and call
            ``train(ckpt_path=".../last.ckpt")``.
        datasplitter_kwargs
            Keyword arguments of the splitter, among them ``decoded_share`` (of each minibatch, 0.25 by default) and
            ``resident`` (whether expression stays on the device).
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``compile``, ...) and of the module's loss
            (``contrastive_weight``, ``reconstruction_weight``, ``commitment_weight``, ``time_weight``).
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`, with ``ckpt_path`` to resume from.

        Raises
        ------
        ValueError
            If a minibatch is larger than the training set, or several devices are used without a seed.
        """
        if self.adata is None:
            msg = "train() draws neighbours of cells, so the model needs them: load or make it with adata=."
            raise ValueError(msg)
        self._refuse_query("train")
        n_train = int(round((train_size or 0.9) * self.adata.n_obs))
        self._check_training(n_train, batch_size, devices, trainer_kwargs.get("strategy"))
        if n_neighbors < 1:
            msg = f"n_neighbors: {n_neighbors} given, a cell needs at least one neighbour."
            raise ValueError(msg)
        if batch_size is None:
            batch_size = int(np.clip(2 ** int(np.log2(max(n_train, 8) / 4)), 4, 256 if n_train < 16_000 else 1024))
        if max_epochs is None:
            max_epochs = int(np.clip(np.ceil(TARGET_STEPS / np.ceil(n_train / batch_size)), 30, 400))
        trainer_kwargs.setdefault("gradient_clip_val", 1.0)
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        if checkpoint_dir is not None:
            trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", []), ResumeCheckpoint(checkpoint_dir)]
        seed = settings.seed
        plan = {"max_leaves": self._max_leaves, "min_cells": self._min_cells, "seed": seed} | (plan_kwargs or {})
        splitter = {
            "represent": self._represent, "encoder_input": self._encoder_input, "n_neighbors": n_neighbors
        } | (datasplitter_kwargs or {})  # fmt: skip
        # scvi-tools leaves a trained module in evaluation mode, and Lightning keeps what it finds
        self.module.train()
        interrupt_handler = signal.getsignal(signal.SIGINT)
        try:
            super().train(
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                train_size=train_size,
                validation_size=validation_size,
                shuffle_set_split=shuffle_set_split,
                batch_size=batch_size,
                early_stopping=early_stopping,
                datasplitter_kwargs=splitter,
                plan_kwargs=plan,
                **trainer_kwargs,
            )
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning turns Ctrl-C into exit(1) and leaves the signal ignored.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt_handler)
            if not bool(self.module.scaler.fitted) or (isinstance(stop, SystemExit) and stop.code != 1):
                raise
            warnings.warn("Training was interrupted: the tree is built from what was learned so far.", stacklevel=2)
            self.module.eval()
            self.is_trained_ = True
        self.build_tree()

    def _represent(self, train_indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Principal components of all cells; the scaler is fitted on training cells the first time."""
        self.train_indices_ = train_indices
        if not bool(self.module.scaler.fitted):
            # it may refuse the times, and the scaler must not count as fitted then
            self._fit_time(rows=train_indices)
            self._fit_scaler(train_indices)
        return self._expression_pca(self._batches(self.adata, None, None, None))

    @torch.inference_mode()
    def _encoder_input(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the encoder reads of all cells, and their library sizes: the scaler is fixed while training goes on."""
        module = self.module
        batches = self._batches(self.adata, None, None, None)
        x, library = self._over(batches, lambda tensors: module._encoder_input(tensors)[::2])
        return x, library

    def build_tree(
        self,
        builder: TreeBuilder | None = None,
        *,
        max_leaves: int | None = None,
        min_cells: int | None = None,
    ) -> None:
        """Build the tree anew on the latents of the training cells, without training.

        The tree has at most ``max_leaves`` leaves of ``min_cells`` cells, and of those splits the ones that the
        validation cells support: these fall on the side where their nearest training cells in expression are.

        Parameters
        ----------
        builder
            ``"links"``: micro-codes merged by observed over expected neighbour links, which follows where cells are
            dense. ``"ward"``: micro-codes merged by size-weighted Ward. ``"bisecting"``: top-down 2-means. The
            constructor's ``tree_builder`` by default.
        max_leaves
            Largest number of leaves, the constructor's by default.
        min_cells
            Smallest number of training cells of a leaf, the constructor's by default.
        """
        self._require_trained("build_tree")
        self._refuse_query("build_tree")
        builder = builder or self._option("tree_builder")
        if builder not in BUILDERS:
            msg = f"builder: {builder!r} is none of {', '.join(BUILDERS)}."
            raise ValueError(msg)
        self._forget_generator()
        latent = self.get_latent(indices=self.train_indices_)
        build_tree(
            self._codebook,
            latent,
            builder=builder,
            max_leaves=max_leaves or self._max_leaves,
            min_cells=min_cells or self._min_cells,
            held_out=self._held_out(),
            seed=settings.seed or 0,
        )
        self._fit_unplaced()

    def _held_out(self) -> tuple[NDArray[np.float32], NDArray[np.int32]] | None:
        """Latents of validation cells and the training cells nearest to each in expression."""
        rows = self._validation_rows()[:HELD_OUT_CELLS]
        if len(rows) == 0:
            return None
        reference = self.get_expression_pca(indices=self.train_indices_)
        near, _ = nearest_neighbors(reference, 15, queries=self.get_expression_pca(indices=rows))
        return self.get_latent(indices=rows), near
