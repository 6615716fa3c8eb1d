"""What both looks at a transmutation need: the mean of a cell's draws, cells of both types, correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from hdtree_sc.get import cells_of_group, transmuted_types, types_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def averager(cell: NDArray[np.int64], n_cells: int) -> sparse.csr_matrix:
    """Matrix (n_cells, n_rows) that takes the mean of each cell's draws."""
    weight = 1 / np.bincount(cell, minlength=n_cells)[cell]
    return sparse.csr_matrix((weight, (cell, np.arange(len(cell)))), shape=(n_cells, len(cell)))


def source_and_target(
    adata: AnnData, transmuted: AnnData, groupby: str | None, key: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the real cells of the source and of the target type."""
    column = types_column(transmuted, groupby, key)
    sources, target = transmuted_types(transmuted)
    source = np.concatenate([cells_of_group(adata, column, label, argument="groupby") for label in sources])
    return source, cells_of_group(adata, column, target, argument="groupby")


def correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of each column; NaN where x or y is constant."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.divide((x * y).sum(0), norm, out=np.full(x.shape[1], np.nan), where=norm > 1e-12)
