"""What the training of every model begins with: options, checks, split, standardisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings
from sklearn.utils.extmath import randomized_svd

from hdtree_sc.model._training_cells import TrainingCellsMixin

if TYPE_CHECKING:
    from numpy.typing import NDArray

SVD_VALUES = 60_000_000
"""Largest number of values (cells x features) that principal components are learned from."""
SCALE_CELLS = 5_000
"""The scale of the principal components is learned from so many cells."""


class TrainingBasics(TrainingCellsMixin):
    """Checks, the scaler and the split of a training."""

    module: Any
    summary_stats: Any
    init_params_: Any
    _batches: Any

    @staticmethod
    def _seed() -> int:
        return int(settings.seed or 0)

    def _option(self, name: str) -> Any:
        return self.init_params_["non_kwargs"][name]

    def _check_training(self, n_train: int, batch_size: int | None, devices: Any, strategy: Any) -> None:
        if n_train < 2:
            msg = f"train_size leaves {n_train} of {self.adata.n_obs} cells to train on: at least two are needed."
            raise ValueError(msg)
        if batch_size is not None and not 2 <= batch_size <= n_train:
            msg = f"batch_size: {batch_size} is outside 2 to {n_train}, the number of training cells."
            raise ValueError(msg)
        many = (isinstance(devices, int) and devices > 1) or (isinstance(devices, list) and len(devices) > 1)
        if (many or "ddp" in str(strategy)) and settings.seed is None:
            msg = "Several devices need a seed, or each would draw its own split: set scvi.settings.seed first."
            raise ValueError(msg)

    def _fit_before(self, train_indices: NDArray[np.int64]) -> None:
        """What is learned before training, of its cells alone."""
        self.train_indices_ = train_indices
        if not bool(self.module.scaler.fitted):
            self._fit_scaler(train_indices)

    def _fit_scaler(self, train_indices: NDArray[np.int64]) -> None:
        """Learn from training cells how values are standardised, and their principal components."""
        module, scaler = self.module, self.module.scaler
        n = max(2, min(len(train_indices), SVD_VALUES // self.summary_stats.n_vars))
        rows = np.sort(np.random.default_rng(0).permutation(train_indices)[:n])
        batches = list(self._batches(self.adata, rows, None, None))
        x = torch.cat([tensors[REGISTRY_KEYS.X_KEY] for tensors in batches])
        library = torch.cat([module._library(tensors) for tensors in batches])
        scaler.fit_moments(x, library)
        values = scaler(x, library).cpu().numpy()
        n_components = min(scaler.components.shape[1], len(values) - 1)
        _, _, axes = randomized_svd(values - values.mean(0), n_components, random_state=0)
        held = [torch.from_numpy(part).to(scaler.components) for part in (values[:SCALE_CELLS], axes)]
        scaler.set_components(*held)
