"""Transmuted cells and the real ones beside them: values of genes, source cells and types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._disk import in_memory
from hdtree_sc._errors import listing

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

RUN = "model.transmute(adata, target=..., source=...)"
BLOCK = 4_000_000
"""Values of a block of genes that is made dense at once."""


class Values:
    """Log-normalised values of some genes of an AnnData, made dense only where they are read.

    Parameters
    ----------
    adata
        The cells.
    layer
        Layer, ``X`` for None.
    target_sum
        Counts of a cell after the normalisation; None: values as they are.
    name
        What messages call ``adata``.
    genes
        Names of the genes, in order; default: all. A cell's counts are summed over these.
    """

    def __init__(
        self, adata: AnnData, layer: str | None, target_sum: float | None, name: str, *, genes: pd.Index | None = None
    ) -> None:
        if layer is not None and layer not in adata.layers:
            msg = f"{name}.layers has no {layer!r}. It has: {listing(adata.layers)}; {RUN} writes those of its result."
            raise KeyError(msg)
        matrix = in_memory(adata.X if layer is None else adata.layers[layer])
        if genes is not None and not genes.equals(adata.var_names):
            columns = adata.var_names.get_indexer(genes) if adata.var_names.is_unique else None
            if columns is None or (columns < 0).any():
                lost = genes if columns is None else genes[columns < 0]
                msg = (
                    f"{name}: its var_names lack, or have more than once, {listing(lost)}; give the cells of the model."
                )
                raise ValueError(msg)
            matrix = matrix[:, columns]
        self._matrix = matrix.tocsc() if sparse.issparse(matrix) else np.asarray(matrix)
        self._scale: NDArray[np.float64] | None = None
        if target_sum is not None:
            if self._matrix.shape[0] and self._matrix.shape[1] and self._matrix.min() < 0:
                where = f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]"
                msg = f"{where} has negative values, so it holds no counts: use log_normalize=False, or name counts."
                raise ValueError(msg)
            total = np.asarray(self._matrix.sum(1, dtype=float)).ravel()
            self._scale = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)

    def dense(self, genes: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Values of some genes in some cells, (n_rows, n_genes)."""
        part: Any = self._matrix[:, genes]
        part = part if rows is None else part[rows]
        values = np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=float)
        if self._scale is None:
            return values
        return np.log1p(values * (self._scale if rows is None else self._scale[rows])[:, None])

    def moments(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of each gene over some cells."""
        mean, variance = np.zeros((2, self._matrix.shape[1]))
        for genes in blocks(len(mean), len(rows)):
            values = self.dense(genes, rows)
            mean[genes], variance[genes] = values.mean(0), values.var(0)
        return mean, variance


def blocks(n_genes: int, n_cells: int) -> list[NDArray[np.int64]]:
    """Numbers of the genes, in parts that may be dense at once."""
    size = max(1, BLOCK // max(n_cells, 1))
    return [np.arange(start, min(start + size, n_genes)) for start in range(0, n_genes, size)]


def source_cells(transmuted: AnnData) -> tuple[NDArray[np.int64], pd.Index]:
    """Number of the source cell of each row, and the names of the source cells."""
    held = transmuted.obs["source_cell"] if "source_cell" in transmuted.obs else transmuted.obs_names
    # a missing name is a name too, so that its cell is looked for and not found
    number, names = pd.factorize(np.asarray(held.astype(str), dtype=object), use_na_sentinel=False)
    return number, pd.Index(names)


def source_rows(adata: AnnData, transmuted: AnnData) -> NDArray[np.int64]:
    """Row in ``adata`` of the source cell of each row of ``transmuted``."""
    if not adata.obs_names.is_unique:
        msg = "adata: its obs_names are not unique, so that source cells can not be found: obs_names_make_unique()."
        raise ValueError(msg)
    number, names = source_cells(transmuted)
    rows = adata.obs_names.get_indexer(names)
    if (rows < 0).any():
        lost = listing(names[rows < 0])
        msg = f"adata: it lacks source cells of transmuted, {lost}; give the cells that were transmuted."
        raise ValueError(msg)
    return rows[number]


def types_column(transmuted: AnnData, groupby: str | None, key: str) -> str:
    """The ``obs`` column with the types: the one that is named, or that of the labels the model was set up with."""
    made = transmuted.uns.get(key, {})
    column = groupby or (made.get("labels_key") if isinstance(made, dict) else None)
    if not column:
        msg = f"groupby: transmuted.uns[{key!r}] has no 'labels_key'; name the column of adata.obs with the types."
        raise ValueError(msg)
    return column


def transmuted_types(transmuted: AnnData) -> tuple[list[str], str]:
    """Names of the source types and of the target type."""
    found = []
    for name in ("source_label", "target_label"):
        if name not in transmuted.obs:
            msg = f"transmuted.obs has no {name!r}: run {RUN}. It has: {listing(transmuted.obs.columns)}."
            raise KeyError(msg)
        found.append([str(label) for label in transmuted.obs[name].dropna().unique()])
        if not found[-1]:
            msg = f"transmuted.obs[{name!r}] holds no value, only missing ones; name source= and target= of {RUN}."
            raise ValueError(msg)
    sources, targets = found
    if len(targets) > 1:
        msg = f"transmuted: it has several targets, {listing(targets)}; give the cells of one."
        raise ValueError(msg)
    return sources, targets[0]
