"""Cells in the order in which they are asked for, in memory or on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi.data import AnnDataManager, AnnTorchDataset
from torch.utils.data import Subset

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class CellDataset(AnnTorchDataset):
    """scvi-tools' dataset, with the rows of a backed AnnData in the order in which they are asked for.

    From a file scvi-tools reads the rows of a minibatch in the order of the file, and h5py reads none twice.
    """

    def __getitem__(self, indexes: int | list[int] | slice) -> dict[str, np.ndarray | torch.Tensor]:
        """Values of some cells, by registry key."""
        if not self.adata_manager.adata.isbacked or not isinstance(indexes, list | np.ndarray):
            return super().__getitem__(indexes)
        rows, place = np.unique(np.asarray(indexes), return_inverse=True)
        return {key: values[place] for key, values in super().__getitem__(rows).items()}


class CellManager(AnnDataManager):
    """scvi-tools' manager of an AnnData, with :class:`CellDataset`."""

    def create_torch_dataset(
        self,
        indices: Sequence[int] | Sequence[bool] | None = None,
        data_and_attributes: list[str] | dict[str, Any] | None = None,
        load_sparse_tensor: bool = False,  # noqa: FBT001, FBT002
    ) -> CellDataset | Subset:
        """Dataset of the registered cells, or of some of them."""
        # rows of a sparse tensor cannot be put in another order
        load_sparse_tensor = load_sparse_tensor and not self.adata.isbacked
        dataset = CellDataset(self, getitem_tensors=data_and_attributes, load_sparse_tensor=load_sparse_tensor)
        return dataset if indices is None else Subset(dataset, indices)
