"""Which way is forward: from pseudotime, from several roots, or from a measured time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import require_column, require_obs, require_obsm
from hdtree_sc._keys import Keys
from hdtree_sc.graph import first_met, medoid, order_from, smoothed, within
from hdtree_sc.tl._root import start_cells
from hdtree_sc.tl._terminal import names_in
from hdtree_sc.tree import node_of_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree


def forward_time(
    adata: AnnData,
    shape: Tree,
    strengths: sparse.csr_matrix,
    *,
    root: object,
    groupby: str | None,
    time_key: str | None,
    key: str,
) -> tuple[NDArray[np.float64], str]:
    """A number in [0, 1] for each cell, (n,), that grows as development goes on, and what it was made of.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    shape
        The tree.
    strengths
        Symmetric cell graph, (n, n).
    root
        Starts; the way from the nearest of them then replaces pseudotime.
    groupby
        Column whose groups `root` names.
    time_key
        Column of a measured time.
    key
        Key of the tree.
    """
    keys = Keys(key)
    measured = None if time_key is None else measured_time(adata, strengths, time_key)
    order = None
    if root is not None:
        names = names_in(root)
        if not names:
            msg = "root: no start was named; leave it out to use the pseudotime that is there."
            raise ValueError(msg)
        leaf = node_of_cells(adata, shape, key=key)
        latent = np.asarray(require_obsm(adata, keys.latent, "hdtree_sc.tl.tree(adata, model)"))
        groups = [start_cells(adata, shape, leaf, name, groupby=groupby, argument="root") for name in names]
        starts = np.array([medoid(latent, group) for group in groups])
        distances, connectivities = (sparse.csr_matrix(adata.obsp[k]) for k in (keys.distances, keys.connectivities))
        order = order_from(
            within(distances, connectivities), connectivities, starts, np.zeros(adata.n_obs, dtype=np.int64)
        )
    elif measured is None or keys.pseudotime in adata.obs:
        run = f"hdtree_sc.tl.pseudotime(adata, root=..., key={key!r}), or name roots here (root=) or a time (time_key=)"
        order = require_obs(adata, keys.pseudotime, run).to_numpy(dtype=float)
        if not np.isfinite(order).all():
            msg = f"adata.obs[{keys.pseudotime!r}] is not finite for all cells: run {run}."
            raise ValueError(msg)
    if measured is None:
        assert order is not None
        return order, "pseudotime" if root is None else "root"
    return measured if order is None else (measured + order) / 2, str(time_key)


def known_times(adata: AnnData, time_key: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A measured time of each cell, (n,), NaN where there is none, and which cells have one.

    Parameters
    ----------
    adata
        The cells.
    time_key
        The column.
    """
    column = require_column(adata, time_key, "time_key")
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    time = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    known = np.isfinite(time)
    if not known.any() or np.ptp(time[known]) == 0:
        msg = f"time_key: adata.obs[{time_key!r}] holds no two different numbers, so it says nothing of direction."
        raise ValueError(msg)
    return time, known


def measured_time(adata: AnnData, strengths: sparse.csr_matrix, time_key: str) -> NDArray[np.float64]:
    """A measured time averaged over neighbours, 0 to 1, (n,); without one that of the cells which a walk meets first.

    Parameters
    ----------
    adata
        The cells.
    strengths
        Symmetric cell graph, (n, n).
    time_key
        The column.
    """
    time, known = known_times(adata, time_key)
    low, high = time[known].min(), time[known].max()
    scaled = np.where(known, (time - low) / (high - low), 0.0)
    value = first_met(strengths, np.zeros(len(time)), known, scaled[:, None]).values[:, 0]
    lost = int(np.isnan(value).sum())
    if lost:
        msg = (
            f"time_key: {lost} cells are in parts of the graph in which no cell has a time in adata.obs[{time_key!r}]. "
            "Give some of them a time, leave them out, or join the parts (pseudotime(disconnected='bridge'))."
        )
        raise ValueError(msg)
    out = smoothed(value, strengths)
    return (out - out.min()) / max(float(np.ptp(out)), 1e-12)
