"""Genes that differ between conditions within a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from hdtree_sc.get import Expression
from hdtree_sc.stats import moderated_t
from hdtree_sc.tl._ranking import rank_groups, ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tl._compare_conditions import Contrast
    from hdtree_sc.tree import Tree

MIN_COUNTS = 10
"""Counts over all samples of a node from which on a gene is tested there."""
COLUMNS = ("node", "condition", "reference", "gene", "log2fc", "p", "fdr")


def condition_genes(
    adata: AnnData,
    tree: Tree,
    node: NDArray[np.int64],
    contrasts: Sequence[Contrast],
    *,
    layer: str | None,
    min_cells: int,
    n_genes: int,
    replicates: bool,
) -> pd.DataFrame:
    """Table described under :func:`hdtree_sc.tl.compare_conditions`.

    Parameters
    ----------
    adata
        The cells.
    tree
        The tree.
    node
        Position of the node of each cell, (n_cells,); -1 for none.
    contrasts
        What is compared.
    layer
        Layer with the expression; None is ``X``.
    min_cells
        Cells of a sample (without samples: of a condition) in a node.
    n_genes
        Genes kept for each node.
    replicates
        Whether there are samples.
    """
    expression = Expression(adata, layer)
    expression.refuse_values(layer)
    # pre-order: the cells below a node are one slice of the cells sorted by node
    order = np.argsort(node, kind="stable")
    first = np.searchsorted(node[order], np.arange(len(tree)))
    last = np.searchsorted(node[order], np.arange(len(tree)) + tree.sizes)
    genes = adata.var_names.astype(str).to_numpy(dtype=object)
    parts = [pd.DataFrame({name: pd.Series(dtype=float if name in COLUMNS[4:] else object) for name in COLUMNS})]
    compare = _samples if replicates else _cells
    for contrast in contrasts:
        for i, name in enumerate(tree.nodes):
            rows = order[first[i] : last[i]]
            rows = rows[contrast.unit[rows] >= 0]
            found = compare(expression, rows, contrast, min_cells)
            if found is None:
                continue
            tested, log2fc, p = found
            fdr = stats.false_discovery_control(p)
            best = np.argsort(p, kind="stable")[:n_genes]
            values = (
                name,
                contrast.condition,
                contrast.reference,
                genes[tested[best]],
                log2fc[best],
                p[best],
                fdr[best],
            )
            parts.append(pd.DataFrame(dict(zip(COLUMNS, values, strict=True))))
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


Found = tuple["NDArray[np.int64]", "NDArray[np.float64]", "NDArray[np.float64]"]
"""Genes tested, log2 fold changes and p-values."""


def _samples(expression: Expression, rows: NDArray[np.int64], contrast: Contrast, min_cells: int) -> Found | None:
    """Moderated t-test (limma) on the sums of the samples."""
    size = np.bincount(contrast.unit[rows], minlength=len(contrast.treated))
    kept = np.flatnonzero(size >= min_cells)
    blocks = contrast.block[kept]
    null = (blocks[:, None] == np.unique(blocks)).astype(float)
    design = np.column_stack([null, contrast.treated[kept].astype(float)])
    rank = np.linalg.matrix_rank(design) if len(kept) else 0
    if len(kept) - rank < 1 or rank == np.linalg.matrix_rank(null):
        return None
    number = np.full(len(size), -1)
    number[kept] = np.arange(len(kept))
    rows = rows[number[contrast.unit[rows]] >= 0]
    ones = np.ones(len(rows))
    member = sparse.csr_matrix((ones, (number[contrast.unit[rows]], np.arange(len(rows)))), (len(kept), len(rows)))
    sums = _dense(member @ expression.matrix[rows])
    if expression.kind == "counts":
        assert expression.library is not None
        library = member @ expression.library[rows]
        tested = np.flatnonzero(sums.sum(0) >= MIN_COUNTS)
        values = np.log2((sums[:, tested] + 0.5) / (library[:, None] + 1.0) * 1e6)
    else:
        tested = np.flatnonzero((sums > 0).any(0))
        values = sums[:, tested] / size[kept][:, None] / np.log(2.0)
    if len(tested) == 0:
        return None
    effect, p = moderated_t(values, design)
    return tested, effect, p


def _cells(expression: Expression, rows: NDArray[np.int64], contrast: Contrast, min_cells: int) -> Found | None:
    """Wilcoxon test of scanpy on cells."""
    treated = contrast.treated[contrast.unit[rows]]
    if min(treated.sum(), (~treated).sum()) < max(min_cells, 2):
        return None
    tested = np.flatnonzero(expression.expressed(rows) > 0)
    if len(tested) == 0:
        return None
    group = pd.Categorical(np.where(treated, "treated", "reference"))
    _, log2fc, p = ranked(rank_groups(expression, rows, group, genes=tested), "treated")
    return tested, log2fc, p


def _dense(matrix: Any) -> NDArray[np.float64]:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=float)
