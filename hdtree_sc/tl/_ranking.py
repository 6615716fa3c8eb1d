"""scanpy's ranking of genes, for cells whose expression was read by this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.get import Expression

Method = Literal["wilcoxon", "t-test"]
"""Tests whose score is a z value, or nearly so, and can be added up over batches."""
TARGET_SUM = 1e4
"""Counts of a cell after normalisation."""


def rank_groups(
    expression: Expression,
    rows: NDArray[np.int64],
    groups: pd.Categorical,
    *,
    genes: NDArray[np.int64],
    method: Method = "wilcoxon",
) -> AnnData:
    """Cells with the result of ``scanpy.tl.rank_genes_groups``, each group against the cells of all others.

    Parameters
    ----------
    expression
        Counts, which are normalised and logarithmised, or logarithms.
    rows
        Cells.
    groups
        ``(n_rows,)``: group of each, all of them with at least two cells.
    genes
        Columns to rank; they are the ``var_names``, as text.
    method
        The test.
    """
    import scanpy as sc  # slow to import
    from anndata import AnnData

    values = sparse.csr_matrix(expression.matrix[rows], dtype=np.float32)
    if expression.kind == "counts":
        values = (sparse.diags(expression.per_cell(TARGET_SUM)[rows]) @ values).tocsr().log1p().astype(np.float32)
    part = AnnData(
        values[:, genes],
        obs=pd.DataFrame({"group": groups}, index=[str(row) for row in rows]),
        var=pd.DataFrame(index=genes.astype(str)),
    )
    part.uns["log1p"] = {"base": None}
    # most counts are ties
    ties = {"tie_correct": True} if method == "wilcoxon" else {}
    # a gene that all of these cells have alike divides 0 by 0, for which scanpy puts a score of 0
    with np.errstate(invalid="ignore"):
        sc.tl.rank_genes_groups(part, "group", method=method, **ties)
    return part


def ranked(part: AnnData, group: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Score, log2 fold change and p-value of each gene, in the order of the genes.

    Parameters
    ----------
    part
        Result of :func:`rank_groups`.
    group
        The group that is compared with the others.
    """
    import scanpy as sc  # slow to import

    table: pd.DataFrame = sc.get.rank_genes_groups_df(part, group).set_index("names").loc[part.var_names]
    score, change, pval = (table[name].to_numpy(float) for name in ("scores", "logfoldchanges", "pvals"))
    return np.nan_to_num(score), change, np.nan_to_num(pval, nan=1.0)
