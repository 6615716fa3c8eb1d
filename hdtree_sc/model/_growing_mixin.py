"""Training of TreeVAE: the tree grows between epochs, and is pruned in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from hdtree_sc._errors import listing
from hdtree_sc.graph import spread_rows
from hdtree_sc.growth import SPLIT_RULES, Cells, Growth, SplitRule, fit_map
from hdtree_sc.model._cell_maker import seeded
from hdtree_sc.model._pair_training import PairTrainingMixin
from hdtree_sc.train import GrowingPlan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TARGET_STEPS = 1200
"""Steps that a default training takes on a small data set."""
GROWTH_VALUES = 40_000_000
"""Largest number of values (cells x features) that candidate splits are trained on."""
HELD_OUT_CELLS = 5_000
"""Splits are scored on at most so many validation cells."""


class GrowingMixin(PairTrainingMixin):
    """``train`` of a model whose tree grows."""

    _training_plan_cls = GrowingPlan
    growth_: list[dict[str, Any]] | None = None

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
        split_rule: SplitRule = "gain",
        checkpoint_dir: str | Path | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train encoder, tree and decoder together; the tree grows meanwhile.

        It begins as its root alone. After shares of the epochs splits of its leaves are tried on cached embeddings,
        and made where held-out cells gain by them; in between all is trained together. Towards the end leaves that are
        too small, or without which held-out cells do better, are taken away.

        Ctrl-C ends training early and leaves a usable model.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default about 1,200 steps, at least 40 and at most 400 passes.
        accelerator
            Lightning accelerator.
        devices
            Lightning devices.
        train_size
            Share of the cells trained on, 0.9 by default.
        validation_size
            Share of the cells validated on, the rest by default. Splits are scored on them.
        shuffle_set_split
            Whether cells are shuffled before they are split.
        batch_size
            Cells in a minibatch, each with a neighbour; by default 256, less for fewer than 1,000 cells, up to 1,024
            for more than 16,000.
        early_stopping
            Whether to stop when ``validation_loss`` no longer falls.
        n_neighbors
            Expression neighbours from which a cell's positive is drawn; they never cross the split.
        split_rule
            ``"gain"``: the split by which held-out cells gain most comes first, and growing ends when none gains.
            ``"largest"``: the largest leaf is split first until there are ``max_leaves``, as published.
        checkpoint_dir
            Folder of ``last.ckpt``, written every tenth epoch. After a crash, set the model up in the same way and call
            ``train(ckpt_path=".../last.ckpt")`` with the same arguments: on a CPU weights, tree and history are those
            of a training that was not stopped. Where the file cannot be written, as on a full disk, a warning says so
            and training goes on.
        datasplitter_kwargs
            Keyword arguments of the splitter, among them ``decoded_share`` (of each minibatch, 0.5 by default).
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``grow_at``, ``prune_at``, ...) and of the module's loss
            (``contrastive_weight``, ``elbo_weight``).
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`, with ``ckpt_path`` to resume from.

        Raises
        ------
        ValueError
            If the rule is unknown, a minibatch is larger than the training set, or several devices are used without a
            seed.

        Notes
        -----
        Sets ``model.history["n_leaves"]`` and :attr:`growth`.
        """
        self._require_cells()
        if split_rule not in SPLIT_RULES:
            msg = f"split_rule: {split_rule!r} is none of {listing(SPLIT_RULES)}."
            raise ValueError(msg)
        growth: list[dict[str, Any]] = []
        plan: dict[str, Any] = {
            "grow": self._grow,
            "prune": self._prune,
            "growth": growth,
            "n_epochs_kl_warmup": None,
        }

        def begin() -> None:
            self._forget_generator()
            self._split_rule, self.growth_ = split_rule, growth

        self._train_on_pairs(
            n_steps=TARGET_STEPS,
            least_epochs=40,
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
            datasplitter_kwargs={"decoded_share": 0.5} | (datasplitter_kwargs or {}),
            plan=plan,
            plan_kwargs=plan_kwargs,
            begin=begin,
            further={"split_rule": split_rule},
            trainer_kwargs=trainer_kwargs,
        )
        self._describe_tree()
        fit_map(self.module.map_head, self.get_latent(indices=self.train_indices_), seed=self._seed())
        self._fit_unplaced()

    def _grow(self, stage: int) -> list[dict[str, Any]]:
        """Split leaves; called by the training plan between epochs."""
        with seeded(self._stage_seed(stage)):
            return self._growth(stage).run()

    def _prune(self, stage: int) -> list[dict[str, Any]]:
        """Take leaves away; called by the training plan between epochs."""
        with seeded(self._stage_seed(stage)):
            return self._growth(stage).prune()

    def _stage_seed(self, stage: int) -> int:
        return 1000 * self._seed() + stage

    def _growth(self, stage: int) -> Growth:
        train, held_out = np.asarray(self.train_indices_), self._validation_rows()
        used = train[spread_rows(len(train), max(2, GROWTH_VALUES // self.summary_stats.n_vars))]
        self.module.eval()
        return Growth(
            self.module,
            self._cells(used),
            self._cells(held_out[spread_rows(len(held_out), HELD_OUT_CELLS)]),
            max_leaves=self._option("max_leaves"),
            max_depth=self._option("max_depth"),
            min_leaf_size=max(2, round(self._option("min_leaf_size") * len(used) / len(train))),
            rule=self._split_rule,
            generator=torch.Generator().manual_seed(self._stage_seed(stage)),
        )

    @torch.no_grad()
    def _cells(self, rows: NDArray[np.integer]) -> Cells:
        """Expression and embedding of some cells."""
        module, parts = self.module, []
        if not len(rows):
            width = module.tree.posterior.first.weight.shape[1]
            return Cells(*(torch.zeros(0, n, device=module.device) for n in (1, width, module.covariates.width, 1)))
        for tensors in self._batches(self.adata, np.sort(rows), None, None):
            told = self._inferred(tensors)
            parts.append((tensors[REGISTRY_KEYS.X_KEY], told["z"], module.covariates(tensors), told["library"]))
        return Cells(*(torch.cat(part) for part in zip(*parts, strict=True)))
