"""Minibatches of cells with a neighbour each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scvi import settings
from scvi.dataloaders import AnnDataLoader, DataSplitter
from torch.utils.data import DataLoader, Sampler

from hdtree_sc._keys import POSITIVE
from hdtree_sc.data._neighbors import nearest_neighbors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch


class PairSampler(Sampler[NDArray[np.int64]]):
    """Rows of each minibatch: b anchors, then one neighbour of each, drawn anew every epoch.

    One vectorised gather per minibatch; the neighbours come from the same side of the split as the anchors.

    Parameters
    ----------
    indices
        Cells to iterate over, (n,), as rows of the AnnData.
    neighbors
        Neighbours of these cells as positions in ``indices``, (n, k).
    batch_size
        Number of anchors in a minibatch.
    shuffle
        Whether to shuffle the anchors and draw random neighbours; else cells come in order with their nearest.
    seed
        Seed of the order and the draws; None takes one from NumPy's fresh entropy.
    """

    def __init__(
        self,
        indices: NDArray[np.integer],
        neighbors: NDArray[np.integer],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
    ) -> None:
        self.indices = np.asarray(indices)
        self.neighbors = neighbors
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        n = len(self.indices)
        order = self.rng.permutation(n) if self.shuffle else np.arange(n)
        # near-equal minibatches: a rest of a few cells would have few negatives
        for anchors in np.array_split(order, len(self)):
            column = self.rng.integers(self.neighbors.shape[1], size=len(anchors)) if self.shuffle else 0
            positives = self.neighbors[anchors, column]
            yield np.concatenate([self.indices[anchors], self.indices[positives]])


class PairSplitter(DataSplitter):
    """scvi-tools' splitter, with neighbours found within each part of the split.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    represent
        Called with the training indices once the split is known; returns the space, (n_cells, p), in which neighbours
        are searched.
    n_neighbors
        Number of neighbours a positive is drawn from.
    seed
        Seed of the pair draws; None uses ``scvi.settings.seed``.
    **kwargs
        Keyword arguments of :class:`scvi.dataloaders.DataSplitter`.
    """

    def __init__(
        self,
        adata_manager: Any,
        *,
        represent: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        n_neighbors: int = 15,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(adata_manager, **kwargs)
        self.represent = represent
        self.n_neighbors = n_neighbors
        self.seed = settings.seed if seed is None else seed
        self.neighbors: dict[str, NDArray[np.int32]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, then find the neighbours of each part among its own cells."""
        super().setup(stage)
        points = self.represent(self.train_idx)
        for part, index in (("train", self.train_idx), ("validation", self.val_idx)):
            if len(index) > 1:
                self.neighbors[part] = nearest_neighbors(points[index], self.n_neighbors, seed=self.seed)[0]

    def train_dataloader(self) -> DataLoader:
        """Minibatches of training pairs, shuffled."""
        return self._pair_loader("train", self.train_idx, shuffle=True)

    def val_dataloader(self) -> DataLoader | None:
        """Minibatches of validation pairs, in order; None without a pair to validate on."""
        if "validation" not in self.neighbors:
            return None
        return self._pair_loader("validation", self.val_idx, shuffle=False)

    def anchor_dataloader(self, n_cells: int) -> AnnDataLoader:
        """Training cells without their neighbours, at most ``n_cells`` of them spread over the set, in order."""
        step = max(1, -(-len(self.train_idx) // n_cells))
        return AnnDataLoader(self.adata_manager, indices=self.train_idx[::step], batch_size=4096)

    def _pair_loader(self, part: str, index: NDArray[np.int64], *, shuffle: bool) -> DataLoader:
        sampler = PairSampler(
            index,
            self.neighbors[part],
            batch_size=self.data_loader_kwargs.get("batch_size") or settings.batch_size,
            shuffle=shuffle,
            seed=self.seed,
        )
        dataset = self.adata_manager.create_torch_dataset(load_sparse_tensor=self.load_sparse_tensor)
        return DataLoader(
            dataset, sampler=sampler, batch_size=None, num_workers=settings.dl_num_workers, pin_memory=self.pin_memory
        )

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """Part the rows into anchors (usual names) and their neighbours (names with the prefix ``positive_``)."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        half = next(iter(batch.values())).shape[0] // 2
        anchors = {key: value[:half] for key, value in batch.items()}
        return anchors | {POSITIVE + key: value[half:] for key, value in batch.items()}
