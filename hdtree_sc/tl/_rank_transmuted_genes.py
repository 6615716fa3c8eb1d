"""Genes by how much a transmutation changed them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc.get import Values, blocks, source_cells
from hdtree_sc.tl._transmuted import averager, correlations, source_and_target

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def rank_transmuted_genes(
    transmuted: AnnData,
    adata: AnnData | None = None,
    *,
    groupby: str | None = None,
    layer: str = "mean",
    source_layer: str = "source_mean",
    adata_layer: str | None = None,
    log_normalize: bool = True,
    target_sum: float = 1e4,
    key: str = "hdtree",
) -> pd.DataFrame:
    """Genes by how much a transmutation changed them, each cell compared with itself.

    A cell's change in a gene is the difference of its values after and before. Of several draws of a cell the mean is
    taken first: cells are the replicates, draws are not. Nothing is scaled to the target cells.

    The p-values speak of the model and not of biology: they say that the model changes a gene in one direction in
    most of the cells it was given. Values that a model decodes vary little, so that nearly every gene is significant;
    read ``effect`` and ``log_fold_change`` first, and with ``adata`` whether real cells differ in the same genes.

    Parameters
    ----------
    transmuted
        Cells after ``model.transmute``.
    adata
        Real cells that hold the source and the target type; with them each change is set beside what is observed.
    groupby
        ``obs`` column of ``adata`` with the types; by default the labels the model was set up with.
    layer
        Layer of ``transmuted`` with the expression after.
    source_layer
        Layer of ``transmuted`` with the expression of the same cells before, made in the same way.
    adata_layer
        Layer of ``adata`` with the values that the model was set up with; ``adata.X`` by default.
    log_normalize
        Whether values are counts: those of a cell are divided by their sum over the genes of ``transmuted``, times
        ``target_sum``, and ``log(1 + x)`` is taken. With False values are compared as they are.
    target_sum
        Counts of a cell after the normalisation.
    key
        Key of the model's fields.

    Returns
    -------
    One row per gene, sorted by ``effect`` from what rose most to what fell most:

    ``mean_before``, ``mean_after``
        Mean over the cells of the (log-normalised) values.
    ``log_fold_change``
        Their difference: a natural logarithm where ``log_normalize=True``, else in the units of the values.
    ``effect``
        Paired Cohen's d: mean of the cells' changes by their standard deviation. 0 where nothing changes, infinite
        where all cells change by the same.
    ``p``, ``fdr``
        Wilcoxon's signed-rank test, two-sided, over the cells (1 where nothing changes), and after Benjamini and
        Hochberg over the genes.
    ``observed_log_fold_change``
        With ``adata``: mean of the real target cells less mean of the real source cells, on the same scale. Counts
        are noisier than what a model expects, and the mean of their logarithms differs less between types: compare
        sign and order of the two columns, not their size.

    ``table.attrs`` has ``n_cells`` and, with ``adata``, ``correlation``: Pearson's, over the genes, between
    ``log_fold_change`` and ``observed_log_fold_change`` (NaN where one of them is constant).

    Raises
    ------
    KeyError
        If a layer or column is missing.
    ValueError
        If there are fewer than two cells, values are negative while ``log_normalize=True``, the transmuted cells have
        several targets, or ``adata`` lacks genes or types.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> transmuted = model.transmute(source="ASG", target="AWA", seed=0)
    >>> table = ht.tl.rank_transmuted_genes(transmuted, adata)
    >>> table["effect"].is_monotonic_decreasing
    True
    >>> agreement = table.attrs["correlation"]
    """
    from scipy.stats import false_discovery_control

    scale = target_sum if log_normalize else None
    cell, names = source_cells(transmuted)
    if len(names) < 2:
        msg = f"transmuted: it has {len(names)} source cells, the test needs at least 2."
        raise ValueError(msg)
    before, after = (Values(transmuted, name, scale, "transmuted") for name in (source_layer, layer))
    average = averager(cell, len(names))
    parts = []
    for genes in blocks(transmuted.n_vars, transmuted.n_obs):
        x, y = (average @ values.dense(genes) for values in (before, after))
        parts.append(_paired(x, y))
    columns = ["mean_before", "mean_after", "log_fold_change", "effect", "p"]
    table = pd.DataFrame(np.concatenate(parts), index=transmuted.var_names.copy(), columns=columns)
    table["fdr"] = false_discovery_control(table["p"].to_numpy())
    table.attrs["n_cells"] = len(names)
    if adata is not None:
        real = Values(adata, adata_layer, scale, "adata", genes=transmuted.var_names)
        source, target = source_and_target(adata, transmuted, groupby, key)
        table["observed_log_fold_change"] = real.moments(target)[0] - real.moments(source)[0]
        modelled, observed = table["log_fold_change"].to_numpy(), table["observed_log_fold_change"].to_numpy()
        table.attrs["correlation"] = float(correlations(modelled[:, None], observed[:, None])[0])
    return table.sort_values("effect", ascending=False, kind="stable")


def _paired(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means before and after, difference, effect and p-value of some genes, (n_genes, 5)."""
    from scipy.stats import wilcoxon

    change = y - x
    mean, spread = change.mean(0), change.std(0, ddof=1)
    # what rounding leaves of a change that is the same in all cells is no spread
    spread[spread <= 1e-12 * np.abs(x).max(0)] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(mean == 0, 0.0, mean / spread)
    p = np.ones(change.shape[1])
    moved = (change != 0).any(0)
    if moved.any():
        p[moved] = wilcoxon(change[:, moved], axis=0).pvalue
    return np.stack([x.mean(0), y.mean(0), mean, effect, p], 1)
