"""Expression of some cells: counts with their library sizes, or values on a log scale."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from hdtree_sc._disk import in_memory
from hdtree_sc._errors import listing, require_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

DataType = Literal["auto", "counts", "log", "values"]
"""What ``data_type=`` takes."""
LARGEST_LOG = 30.0
"""No logarithm of a count is larger."""


class Expression:
    """A matrix of cells by genes, and what kind of numbers it holds.

    Parameters
    ----------
    adata
        The cells.
    layer
        Layer; ``X`` for None.
    data_type
        ``"counts"``, ``"log"``, ``"values"`` or ``"auto"``, see :attr:`kind`.
    size_factor_key
        ``obs`` column with the library size of each cell; by default the sum over the genes that are there.
    rows
        Cells wanted; by default all.

    Raises
    ------
    KeyError
        There is no such layer or column.
    ValueError
        Values are missing or infinite, counts are negative, library sizes are not positive, or ``data_type`` is
        unknown.
    """

    kind: str
    """``"counts"``: integers, or what is not negative and too large for a logarithm. ``"log"``: other values that are
    not negative, taken as ``log(1 + x)``. ``"values"``: some are negative, as after scaling."""
    matrix: Any
    """Cells by genes: CSR or a dense array."""
    library: NDArray[np.float64] | None
    """``(n_cells,)``: library sizes, of counts only; 0 for cells without a count."""

    def __init__(
        self,
        adata: AnnData,
        layer: str | None = None,
        *,
        data_type: DataType = "auto",
        size_factor_key: str | None = None,
        rows: NDArray[np.integer] | None = None,
    ) -> None:
        if data_type not in ("auto", "counts", "log", "values"):
            msg = f"data_type: {data_type!r} is unknown; choose 'auto', 'counts', 'log' or 'values'."
            raise ValueError(msg)
        if layer is not None and layer not in adata.layers:
            msg = f"layer: adata.layers has no {layer!r}. It has: {listing(adata.layers)}."
            raise KeyError(msg)
        if size_factor_key is not None:
            require_column(adata, size_factor_key, "size_factor_key")
        whole: Any = in_memory(adata.X if layer is None else adata.layers[layer])
        name = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        if whole is None:
            msg = f"{name} is None: name a layer with expression (layer=)."
            raise ValueError(msg)
        # the kind is that of all cells, whatever part of them is looked at
        self.kind = _kind(whole, name, data_type)
        chosen = whole if rows is None else whole[rows]
        self.matrix = sparse.csr_matrix(chosen) if sparse.issparse(chosen) else np.asarray(chosen)
        self.library = None
        if self.kind == "counts":
            if size_factor_key is None:
                self.library = np.asarray(self.matrix.sum(1, dtype=float)).ravel()
            else:
                sizes = adata.obs[size_factor_key].to_numpy(float)
                self.library = sizes if rows is None else sizes[rows]
                if not (np.isfinite(self.library) & (self.library > 0)).all():
                    msg = f"size_factor_key: adata.obs[{size_factor_key!r}] has values that are not positive numbers."
                    raise ValueError(msg)

    def dense(self, genes: slice | NDArray[np.integer]) -> NDArray[np.float64]:
        """Some genes as they are, (n_cells, n_genes)."""
        part = self.matrix[:, genes]
        return np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=float)

    def expressed(self, rows: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """Cells (of `rows`, by default of all) that have a value other than 0 in each gene, (n_genes,)."""
        part = self.matrix if rows is None else self.matrix[rows]
        if sparse.issparse(part):
            return np.asarray((part != 0).sum(0)).ravel().astype(np.int64)
        return np.count_nonzero(part, axis=0).astype(np.int64)

    def refuse_values(self, layer: str | None) -> None:
        """Refuse what is neither counts nor logarithms, so that no fold change can be taken of it.

        Parameters
        ----------
        layer
            The layer that was read, for the message.

        Raises
        ------
        ValueError
            The values are of another kind.
        """
        if self.kind == "values":
            name = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
            msg = f"{name} has negative values, so it holds neither counts nor logarithms: name their layer (layer=)."
            raise ValueError(msg)

    def per_cell(self, target_sum: float) -> NDArray[np.float64]:
        """``(n_cells,)``: what a count of each cell is multiplied with for ``target_sum`` counts per cell."""
        if self.library is None:
            return np.ones(self.matrix.shape[0])
        return np.divide(target_sum, self.library, out=np.zeros_like(self.library), where=self.library > 0)


def gene_numbers(adata: AnnData, genes: Sequence[str] | str) -> NDArray[np.int64]:
    """Columns of genes, in the order given.

    Parameters
    ----------
    adata
        The cells.
    genes
        Names, of ``var_names``.

    Raises
    ------
    KeyError
        A gene is not there.
    ValueError
        No gene is given, or one is there more than once.
    """
    names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    if not names:
        msg = "genes: none given."
        raise ValueError(msg)
    unknown = [name for name in names if name not in adata.var_names]
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name, list(adata.var_names), n=3)]
        hint = f" Did you mean {listing(close)}?" if close else ""
        msg = f"genes: {listing(unknown)} are not in adata.var_names.{hint}"
        raise KeyError(msg)
    return gene_columns(adata.var_names, names, "genes")


def gene_columns(
    var_names: pd.Index, names: Sequence[str], argument: str, where: str = "adata.var_names"
) -> NDArray[np.int64]:
    """Columns of genes that are known to be there, in the order given.

    Parameters
    ----------
    var_names
        Names of all genes.
    names
        Those wanted.
    argument, where
        What they were given as, and what `var_names` are called, for the message.

    Raises
    ------
    ValueError
        One of the genes is there more than once.
    """
    twice = set(var_names[var_names.duplicated()])
    if twice.intersection(names):
        which = listing(name for name in dict.fromkeys(names) if name in twice)
        msg = f"{argument}: {where} has {which} more than once; make the names unique (adata.var_names_make_unique())."
        raise ValueError(msg)
    return var_names.get_indexer_for(names).astype(np.int64)


def median_library(library: NDArray[np.float64] | None) -> float:
    """Median of the library sizes that are positive; 1 where there are none."""
    if library is None or not (library > 0).any():
        return 1.0
    return float(np.median(library[library > 0]))


def _kind(matrix: Any, name: str, data_type: str) -> str:
    values = np.asarray(matrix.data if sparse.issparse(matrix) else matrix)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        msg = f"{name} has missing or infinite values: remove or fill them first."
        raise ValueError(msg)
    if data_type == "counts" and low < 0:
        msg = f"{name} has negative values, so it holds no counts: name their layer (layer=)."
        raise ValueError(msg)
    if data_type != "auto":
        return data_type
    if low < 0:
        return "values"
    return "counts" if high > LARGEST_LOG or bool((values == np.rint(values)).all()) else "log"
