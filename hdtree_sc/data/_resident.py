"""Minibatches of pairs gathered from tensors, on the device where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scvi.data import AnnDataManager

ROOM = 0.5
"""Share of a device's free memory that values may fill."""


class SparseRows:
    """A CSR matrix as tensors, whose rows come out dense.

    Parameters
    ----------
    matrix
        SciPy's matrix, of any format.
    device
        Where to keep it.
    """

    def __init__(self, matrix: sparse.spmatrix, device: torch.device) -> None:
        rows = matrix.tocsr()
        if not rows.has_canonical_format:
            # an entry that is stored twice counts twice, and a scatter would keep one of them
            rows = rows.copy()
            rows.sum_duplicates()
        self.width = rows.shape[1]
        self.start = torch.from_numpy(rows.indptr.astype(np.int64)).to(device)
        self.column = torch.from_numpy(rows.indices.astype(np.int32)).to(device)
        self.value = torch.from_numpy(rows.data.astype(np.float32)).to(device)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        start = self.start[index]
        length = self.start[index + 1] - start
        row = torch.repeat_interleave(length)
        before = length.cumsum(0) - length
        entry = torch.arange(len(row), device=row.device) + (start - before)[row]
        out = torch.zeros(len(index), self.width, device=self.value.device)
        out[row, self.column[entry].long()] = self.value[entry]
        return out


class PairCells(Dataset):
    """What training reads of its cells.

    A minibatch is asked for by rows, anchors first and then a neighbour of each. What the encoder reads and the
    covariates are tensors; expression, which only the decoder reads, comes for the first ``n_decoded`` anchors alone.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    fixed
        Further tensors of all cells, (n, ...), by their names in a minibatch.
    n_decoded
        From the number of rows asked for to the number of those whose expression is needed.
    device
        Where tensors are kept.
    resident
        Whether expression is kept there too. It is read from the AnnData otherwise.
    load_sparse_tensor
        Whether expression that is read from the AnnData stays sparse on its way to the device.
    """

    def __init__(
        self,
        adata_manager: AnnDataManager,
        *,
        fixed: dict[str, NDArray[np.float32]],
        n_decoded: Callable[[int], int],
        device: torch.device,
        resident: bool = False,
        load_sparse_tensor: bool = False,
    ) -> None:
        self.source = adata_manager.create_torch_dataset(
            data_and_attributes=[REGISTRY_KEYS.X_KEY], load_sparse_tensor=load_sparse_tensor
        )
        self.n_decoded = n_decoded
        self.device = device
        others = adata_manager.create_torch_dataset()
        dtypes = {key: dtype for key, dtype in others.keys_and_dtypes.items() if key != REGISTRY_KEYS.X_KEY}
        held = {key: _dense(others.data[key], dtype) for key, dtype in dtypes.items()} | fixed
        self.held = {key: torch.from_numpy(values).to(device) for key, values in held.items()}
        self.values: torch.Tensor | SparseRows | None = None
        if resident:
            values = self.source.data[REGISTRY_KEYS.X_KEY]
            is_sparse = sparse.issparse(values)
            self.values = (
                SparseRows(values, device) if is_sparse else torch.from_numpy(_dense(values, np.float32)).to(device)
            )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: NDArray[np.integer]) -> dict[str, torch.Tensor]:
        return self.read(rows, self.n_decoded(len(rows)))

    def read(self, rows: NDArray[np.integer], n_decoded: int) -> dict[str, torch.Tensor]:
        """The given rows, and the expression of the first ``n_decoded`` of them."""
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self.device)
        batch = {key: values[index] for key, values in self.held.items()}
        if n_decoded:
            held = self.values
            batch[REGISTRY_KEYS.X_KEY] = (
                torch.as_tensor(self.source[rows[:n_decoded]][REGISTRY_KEYS.X_KEY])
                if held is None
                else held[index[:n_decoded]]
            )
        return batch

    def release(self) -> None:
        """Give the memory back: Lightning keeps a trainer's loaders for as long as the model lives."""
        self.held, self.values = {}, None


def fits(adata_manager: AnnDataManager, device: torch.device) -> bool:
    """Whether the values of all cells fit in a share of a GPU's free memory; never where they are not in memory.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    device
        The device.
    """
    if device.type != "cuda":
        return False
    values = adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    if not isinstance(values, np.ndarray | pd.DataFrame) and not sparse.issparse(values):
        return False
    return needed(values) < ROOM * torch.cuda.mem_get_info(device)[0]


def needed(values: Any) -> int:
    """Bytes that values take as float32 tensors: columns and row starts besides where they are sparse."""
    if sparse.issparse(values):
        return 8 * values.nnz + 8 * (values.shape[0] + 1)
    return 4 * values.shape[0] * values.shape[1]


def _dense(values: Any, dtype: Any) -> NDArray[Any]:
    array = values.to_numpy() if isinstance(values, pd.DataFrame) else np.asarray(values)
    return np.require(array, dtype, ["C", "W"])
