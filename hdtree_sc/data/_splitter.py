"""Minibatches of cells with a neighbour each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS, settings
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader, Sampler

from hdtree_sc._keys import ENCODER_INPUT, POSITIVE
from hdtree_sc.data._batches import neighbors_in_batches
from hdtree_sc.data._resident import PairCells, fits
from hdtree_sc.graph import nearest_neighbors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MIN_DECODED = 64
"""The likelihood is taken of at least so many cells of a minibatch, or of all if there are fewer."""
ANCHOR_BATCH = 4096


class PairSampler(Sampler[NDArray[np.int64]]):
    """Rows of each minibatch: b anchors, then one neighbour of each, drawn again every epoch.

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
        Seed of the order and the draws, or their random numbers; None takes fresh entropy.
    """

    def __init__(
        self,
        indices: NDArray[np.integer],
        neighbors: NDArray[np.integer],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int | np.random.Generator | None,
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


class FittingSplitter(DataSplitter):
    """scvi-tools' splitter that says which cells are trained on before the first of them is seen.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    fit
        Called with the training indices.
    **kwargs
        Keyword arguments of :class:`scvi.dataloaders.DataSplitter`.
    """

    def __init__(self, adata_manager: Any, *, fit: Callable[[NDArray[np.int64]], None], **kwargs: Any) -> None:
        super().__init__(adata_manager, **kwargs)
        self.fit = fit

    def setup(self, stage: str | None = None) -> None:
        """Split the cells and learn what training begins with."""
        super().setup(stage)
        self.fit(self.train_idx)


class PairSplitter(DataSplitter):
    """scvi-tools' splitter, with neighbours found within each part of the split.

    Where cells come in batches, half of the neighbours are of the cell's batch and half are its mutual nearest
    neighbours in others, so that the latent is one for all batches.

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
    encoder_input
        Gives what the encoder reads of each cell, (n_cells, p), and the library sizes, (n_cells, 1). Cells are then not
        normalised and projected again in every minibatch. Without it minibatches hold the expression of all their
        cells.
    decoded_share
        Share of each minibatch's anchors, drawn at random as the minibatch is, whose expression is decoded; at least 64
        cells. Used with ``encoder_input`` only.
    resident
        Whether expression stays on the training device; None: on a GPU, if it fits in half of the free memory.
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
        encoder_input: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None,
        decoded_share: float = 0.25,
        resident: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(adata_manager, **kwargs)
        if not 0 < decoded_share <= 1:
            msg = f"decoded_share: {decoded_share} is outside 0 to 1."
            raise ValueError(msg)
        self.represent = represent
        self.n_neighbors = n_neighbors
        self.seed = settings.seed if seed is None else seed
        self.encoder_input = encoder_input
        self.decoded_share = decoded_share
        self.resident = resident
        self._held: PairCells | None = None
        self._rng = np.random.default_rng(self.seed)
        self.neighbors: dict[str, NDArray[np.int32]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, then find the neighbours of each part among its own cells."""
        super().setup(stage)
        points = self.represent(self.train_idx)
        batch = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
        for part, index in (("train", self.train_idx), ("validation", self.val_idx)):
            if len(index) > 1:
                self.neighbors[part] = self._search(points[index], batch[index])

    def _search(self, points: NDArray[np.float32], batch: NDArray[np.integer]) -> NDArray[np.int32]:
        if len(np.unique(batch)) > 1:
            return neighbors_in_batches(points, batch, self.n_neighbors, seed=self.seed)
        return nearest_neighbors(points, self.n_neighbors, seed=self.seed)[0]

    def train_dataloader(self) -> DataLoader:
        """Minibatches of training pairs, shuffled."""
        return self._pair_loader("train", self.train_idx, shuffle=True)

    def state_dict(self) -> dict[str, Any]:
        """Random numbers of the pairs, for a checkpoint."""
        return {"pairs": self._rng.bit_generator.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Draw pairs from where a checkpoint was.

        Parameters
        ----------
        state_dict
            What :meth:`state_dict` gave.
        """
        self._rng.bit_generator.state = state_dict["pairs"]
        # read now: to read cells draws global random numbers, and the checkpoint's are restored after this
        self._cells()

    def val_dataloader(self) -> DataLoader | None:
        """Minibatches of validation pairs, in order; None without a pair to validate on."""
        if "validation" not in self.neighbors:
            return None
        return self._pair_loader("validation", self.val_idx, shuffle=False)

    def anchor_dataloader(self, n_cells: int) -> Iterable[dict[str, torch.Tensor]]:
        """Training cells without their neighbours, at most ``n_cells`` of them spread over the set, in order."""
        step = max(1, -(-len(self.train_idx) // n_cells))
        rows = self.train_idx[::step]
        batches = np.array_split(rows, -(-len(rows) // ANCHOR_BATCH))
        cells = self._cells()
        return (cells.read(batch, 0 if self.encoder_input else len(batch)) for batch in batches)

    def _pair_loader(self, part: str, index: NDArray[np.int64], *, shuffle: bool) -> DataLoader:
        sampler = PairSampler(
            index,
            self.neighbors[part],
            batch_size=self.data_loader_kwargs.get("batch_size") or settings.batch_size,
            shuffle=shuffle,
            seed=self._rng,
        )
        cells = self._cells()
        # what is on a GPU cannot be pinned, nor read by another process
        away = cells.device.type != "cpu"
        return DataLoader(
            cells,
            sampler=sampler,
            batch_size=None,
            num_workers=0 if away else settings.dl_num_workers,
            pin_memory=self.pin_memory and not away,
        )

    def _cells(self) -> PairCells:
        """The cells as tensors, made when training begins: by then a checkpoint's scaler is in place."""
        if self._held is None:
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            resident = fits(self.adata_manager, device) if self.resident is None else self.resident
            fixed = {}
            if self.encoder_input is not None:
                fixed = dict(zip((ENCODER_INPUT, REGISTRY_KEYS.SIZE_FACTOR_KEY), self.encoder_input(), strict=True))
            self._held = PairCells(
                self.adata_manager,
                fixed=fixed,
                n_decoded=self._n_decoded,
                device=device if resident else torch.device("cpu"),
                resident=resident,
                load_sparse_tensor=self.load_sparse_tensor,
            )
        return self._held

    def _n_decoded(self, n_rows: int) -> int:
        if self.encoder_input is None:
            return n_rows
        n_anchors = n_rows // 2
        return min(n_anchors, max(MIN_DECODED, round(self.decoded_share * n_anchors)))

    def teardown(self, stage: str | None = None) -> None:
        """Free the device: Lightning keeps a trainer's loaders for as long as the model lives."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """Part the rows into anchors (usual names) and their neighbours (names with the prefix ``positive_``)."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        half = batch[REGISTRY_KEYS.BATCH_KEY].shape[0] // 2
        # expression may be there for some anchors only
        anchors = {key: value[:half] for key, value in batch.items()}
        return anchors | {POSITIVE + key: value[half:] for key, value in batch.items() if len(value) > half}
