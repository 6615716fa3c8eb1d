"""Genes that change along a lineage path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc.get import Expression, median_library, path_cells
from hdtree_sc.stats import Curves, design, trend_curves, trend_test

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.get import DataType, Order, PathLike

N_POINTS = 100
"""Points at which a trend is looked at."""
OFFSET = 0.1
"""Counts of a cell of median library that are added before a logarithm is taken."""


def path_genes(
    adata: AnnData,
    path: PathLike = None,
    key: str = "hdtree",
    *,
    layer: str | None = None,
    data_type: DataType = "auto",
    batch_key: str | None = None,
    size_factor_key: str | None = None,
    order: Order = "auto",
    n_knots: int = 6,
    min_cells: int = 10,
) -> pd.DataFrame:
    """Find the genes that change along a lineage path.

    Each gene is regressed on natural cubic splines of the cells' pseudotime and tested against a model without them.
    For counts the regression is negative binomial with the library size as offset, so that a library that grows along
    the path is not taken for genes that rise; a test on log-normalised values takes it for that. All genes share one
    design, and are fitted at once.

    The test is the score test in its F form: residuals of the model without a trend, weighted by its variances, are
    regressed on the splines. It needs no fit of the full model, asks the data and not the model for the size of the
    noise, and keeps its level for sparse genes too: with pseudotime shuffled its p-values are uniform.

    Two things p-values do not know. Pseudotime and path were found from the same expression, which makes them too
    small: read them as a ranking, and ask for an ``effect`` too. And cells are the replicates: where cells come from
    few individuals, ``batch_key`` removes differences between them in level, not in trend. See the guide for a test on
    cells' counts that the tree has not seen.

    Parameters
    ----------
    adata
        Cells with a tree, and best with :func:`hdtree_sc.tl.pseudotime`.
    path
        Table of :func:`hdtree_sc.tl.lineage_path`, its name in ``adata.uns[key]["paths"]``, or a list of nodes; by
        default the newest path. A node stands for all cells at or below it, but a branch point on the way holds none.
    key
        Key of the tree.
    layer
        Layer with expression; ``adata.X`` by default.
    data_type
        ``"counts"``; ``"log"``: log(1 + normalised counts); ``"values"``: anything else, such as scaled values. The
        last two are fitted by least squares. ``"auto"``: counts where all values are integers or some are above 30,
        else ``"log"`` where none is negative.
    batch_key
        ``obs`` column of batches or individuals: each gets its own level of every gene.
    size_factor_key
        ``obs`` column with the library size of each cell; by default the sum of its counts over the genes that are
        there. Give it where only some genes were kept.
    order
        What cells are ordered by: ``"pseudotime"``, ``"path"`` (distance along it, from the place of each cell between
        the means of its neighbouring nodes) or ``"auto"``: pseudotime where it is there and runs along the path.
    n_knots
        Knots of the splines, at quantiles of the cells: more follow sharper changes and cost power.
    min_cells
        Genes that fewer cells of the path express are left out.

    Returns
    -------
    One row per gene (index: ``var_names``), the strongest evidence first:

    ``effect``
        Log2 fold change between the lowest and the highest point of the fitted trend, positive where the lowest comes
        first; 0.1 counts of a cell of median library are added to both, so that what is hardly ever seen does not look
        like a large change. With ``data_type="log"`` of the means of log(1 + x), which are smaller; with ``"values"``
        the difference in units of the data.
    ``trend``
        ``"up"``, ``"down"``, ``"transient"`` (up and down again) or ``"dip"``.
    ``peak``
        Pseudotime (or distance) at which the trend is highest.
    ``mean``
        Mean of the fitted trend: counts of a cell of median library, or units of the data.
    ``fraction``
        Share of the path's cells that express the gene.
    ``r2``
        Share of the (weighted) variance within batches that the trend explains.
    ``statistic``, ``pval``, ``pval_adj``
        F statistic, its p-value, and the false discovery rate over the genes of the table (Benjamini and Hochberg).

    ``table.attrs`` has ``n_cells``, ``order`` and ``data_type``, what was used.

    Raises
    ------
    KeyError
        If the tree, path, layer or a column is missing.
    ValueError
        If the path has fewer than 20 cells or no order, values are missing, or an argument is out of range.

    Notes
    -----
    Negative binomial trends along pseudotime are the idea of tradeSeq (Van den Berge et al., Nature Communications
    2020), the score test for counts that of Rao; ordering cells by what is then tested is discussed by Song and Li
    (Genome Biology 2021).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> path = ht.tl.lineage_path(adata, "Neuroblast_ASG_AWA", "AWA", groupby="cell_type")
    >>> genes = ht.tl.path_genes(adata, path)
    >>> rising = genes.query("pval_adj < 0.05 and trend == 'up'").index
    >>> genes["pval"].is_monotonic_increasing
    True
    """
    if n_knots < 2:
        msg = f"n_knots: {n_knots} given, at least 2 wanted."
        raise ValueError(msg)
    if min_cells < 1:
        msg = f"min_cells: {min_cells} given, at least 1 wanted."
        raise ValueError(msg)
    cells = path_cells(adata, path, key=key, order=order)
    expression = Expression(adata, layer, data_type=data_type, size_factor_key=size_factor_key, rows=cells.rows)
    plan = design(cells.position, cells.batches(adata, batch_key), n_knots, N_POINTS)
    expressed = expression.expressed()
    genes = np.flatnonzero(expressed >= min_cells)
    columns = ["effect", "trend", "peak", "mean", "fraction", "r2", "statistic", "pval", "pval_adj"]
    if len(genes) == 0:
        table = pd.DataFrame(columns=columns, index=adata.var_names[:0])
    else:
        from scipy.stats import false_discovery_control  # slow to import

        test = trend_test(expression, plan, genes)
        curves = trend_curves(expression, plan, genes, target_sum=median_library(expression.library))
        effect, trend = describe(curves, expression.kind)
        table = pd.DataFrame(
            {
                "effect": effect,
                "trend": trend,
                "peak": plan.grid[curves.fit.argmax(1)],
                "mean": curves.fit.mean(1),
                "fraction": expressed[genes] / len(cells.rows),
                "r2": test.r2,
                "statistic": test.statistic,
                "pval": test.pval,
                "pval_adj": false_discovery_control(test.pval),
            },
            index=adata.var_names[genes],
        )
        # where p-values underflow the statistic still ranks
        table = table.iloc[np.lexsort((-test.statistic, test.pval))]
    table.index.name = "gene"
    table.attrs.update(n_cells=len(cells.rows), order=cells.order, data_type=expression.kind)
    return table


def describe(curves: Curves, kind: str) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Signed size and shape of trends.

    Parameters
    ----------
    curves
        The trends.
    kind
        ``"counts"``, ``"log"`` or ``"values"``.
    """
    # without the offset, the wiggles of a curve below one count in a hundred cells would be what is described
    fit = np.log2(curves.fit + OFFSET) if kind == "counts" else curves.fit / (np.log(2.0) if kind == "log" else 1.0)
    high, low = fit.argmax(1), fit.argmin(1)
    size = fit.max(1) - fit.min(1)
    net = fit[:, -1] - fit[:, 0]
    above = fit.max(1) - np.maximum(fit[:, 0], fit[:, -1])
    below = np.minimum(fit[:, 0], fit[:, -1]) - fit.min(1)
    through = np.abs(net) >= size / 2.0
    shape = np.where(through, np.where(net >= 0, "up", "down"), np.where(above >= below, "transient", "dip"))
    return np.where(high >= low, size, -size), shape.astype(object)
