"""Training of HDTree, and its final tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import settings

from hdtree_sc.data._neighbors import nearest_neighbors
from hdtree_sc.model._pair_training import PairTrainingMixin
from hdtree_sc.model._tree_builder import BUILDERS, TreeBuilder, build_tree
from hdtree_sc.train import TreeTrainingPlan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TARGET_STEPS = 800
"""Steps that a default training takes on a small data set."""
HELD_OUT_CELLS = 5_000
"""Splits are checked on at most so many validation cells."""


class TreeTrainingMixin(PairTrainingMixin):
    """Training with pairs of neighbours, and a tree at its end."""

    _training_plan_cls = TreeTrainingPlan

    @property
    def _min_cells(self) -> int:
        given = self._option("min_cells")
        return given if given is not None else int(np.clip(self._n_cells_split // 20, 2, 10))

    @property
    def _max_leaves(self) -> int:
        # a leaf should hold some ten cells on average; those that are noise are found on held-out cells
        return int(np.clip(self._n_cells_split // 10, 2, self._option("max_leaves")))

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
            ``train(ckpt_path=".../last.ckpt")`` with the same arguments: on a CPU weights, tree and history are those
            of a training that was not stopped. Where the file cannot be written, as on a full disk, a warning says so
            and training goes on.
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
        self._require_cells()
        plan = {"max_leaves": self._max_leaves, "min_cells": self._min_cells, "seed": settings.seed}
        self._train_on_pairs(
            n_steps=TARGET_STEPS,
            least_epochs=30,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size,
            early_stopping=early_stopping,
            n_neighbors=n_neighbors,
            checkpoint_dir=checkpoint_dir,
            datasplitter_kwargs=datasplitter_kwargs,
            plan=plan,
            plan_kwargs=plan_kwargs,
            begin=self._forget_generator,
            trainer_kwargs=trainer_kwargs,
        )
        self.build_tree()

    def _fit_before(self, train_indices: NDArray[np.int64]) -> None:
        if not bool(self.module.scaler.fitted):
            # it may refuse the times, and the scaler must not count as fitted then
            self.train_indices_ = train_indices
            self._fit_time(rows=train_indices)
        super()._fit_before(train_indices)

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
        self._require_training_cells("build_tree")
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
