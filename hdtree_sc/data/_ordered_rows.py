"""Cells in the order in which they are asked for, in memory or on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, AnnTorchDataset
from torch.utils.data import Subset

from hdtree_sc._disk import is_on_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class OrderedDataset(AnnTorchDataset):
    """scvi-tools' dataset, with rows that are read from disk in the order in which they are asked for.

    From a file scvi-tools reads the rows of a minibatch in the order of the file, and h5py reads none twice.
    """

    def __getitem__(self, indexes: int | list[int] | slice) -> dict[str, np.ndarray | torch.Tensor]:
        """Values of some cells, by registry key."""
        if not isinstance(indexes, list | np.ndarray) or not any(map(is_on_disk, self.data.values())):
            return super().__getitem__(indexes)
        rows, place = np.unique(np.asarray(indexes), return_inverse=True)
        return {key: values[place] for key, values in super().__getitem__(rows).items()}


class OrderedManager(AnnDataManager):
    """scvi-tools' manager of an AnnData, with :class:`OrderedDataset`."""

    def create_torch_dataset(
        self,
        indices: Sequence[int] | Sequence[bool] | None = None,
        data_and_attributes: list[str] | dict[str, Any] | None = None,
        load_sparse_tensor: bool = False,  # noqa: FBT001, FBT002
    ) -> OrderedDataset | Subset:
        """Dataset of the registered cells, or of some of them."""
        # rows of a sparse tensor cannot be put in another order
        load_sparse_tensor = load_sparse_tensor and not is_on_disk(self.get_from_registry(REGISTRY_KEYS.X_KEY))
        dataset = OrderedDataset(self, getitem_tensors=data_and_attributes, load_sparse_tensor=load_sparse_tensor)
        return dataset if indices is None else Subset(dataset, indices)
