"""Order cells from a root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from hdtree_sc._errors import require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.tl._root import root_cell
from hdtree_sc.tree import Tree
from hdtree_sc.tree._sums import subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

SMOOTHING_STEPS = 50
MEMORY = 0.02
"""Share of its own distance that a cell keeps at each smoothing step."""


def pseudotime(
    adata: AnnData,
    root: str | None = None,
    *,
    root_key: str | None = None,
    root_value: object = None,
    key: str = "hdtree",
    copy: bool = False,
) -> AnnData | None:
    """Order cells by their way from a root.

    The shortest way over the cell graph of :func:`lineage_graph`, as long as expression says, then averaged over
    neighbours in the latent: expression carries the order between types, the latent that within one.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    root
        Name of the root cell, or of a node, whose medoid is the root.
    root_key
        ``obs`` column of groups, in place of ``root``.
    root_value
        Group whose medoid is the root.
    key
        Key of the tree.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.obs["<key>_pseudotime"]`` : float64
        From 0 at the root to 1; finite for every cell, since the graph is connected.
    ``adata.uns["<key>"]["nodes"]["pseudotime"]`` : float64
        Mean over the cells of each node.
    ``adata.uns["<key>"]["pseudotime"]`` : dict
        ``root_cell`` and ``root_node`` (its leaf).

    Raises
    ------
    KeyError
        If the graph is missing.
    ValueError
        If the root does not exist or is not given.
    """
    keys = Keys(key)
    run = "hdtree_sc.tl.tree(adata, model) and hdtree_sc.tl.lineage_graph(adata)"
    stored = require_uns(adata, key, run)
    require_uns(adata, keys.neighbors, "hdtree_sc.tl.lineage_graph(adata)")
    shape = Tree.from_adata(adata, key=key)
    start = root_cell(adata, shape, root=root, root_key=root_key, root_value=root_value, key=key)
    time = order_from(adata.obsp[keys.distances], adata.obsp[keys.connectivities], start)

    leaf = shape.index(adata.obs[keys.leaf])
    sums = np.bincount(leaf, weights=time, minlength=len(shape))
    held = np.bincount(leaf, minlength=len(shape))
    total, count = subtree_sums(shape, sums), subtree_sums(shape, held)

    out = adata.copy() if copy else adata
    stored = out.uns[key]
    out.obs[keys.pseudotime] = time
    stored["nodes"] = stored["nodes"].assign(
        pseudotime=np.divide(total, count, out=np.zeros(len(shape)), where=count > 0)
    )
    stored["pseudotime"] = {"root_cell": str(adata.obs_names[start]), "root_node": str(shape.nodes[leaf[start]])}
    return out if copy else None


def order_from(distances: sparse.csr_matrix, connectivities: sparse.csr_matrix, start: int) -> NDArray[np.float64]:
    """Pseudotime in [0, 1] of the cells of a connected graph.

    Parameters
    ----------
    distances
        Edge lengths, (n, n).
    connectivities
        Edge strengths, (n, n).
    start
        Row of the root cell.
    """
    way = dijkstra(distances, directed=False, indices=start)
    # a user's own graph may fall apart: what cannot be reached is as far as what is farthest
    way[~np.isfinite(way)] = way[np.isfinite(way)].max()
    strength = np.asarray(connectivities.sum(1)).ravel()
    average = sparse.diags(1.0 / np.maximum(strength, 1e-12)) @ connectivities
    time = way
    for _ in range(SMOOTHING_STEPS):
        time = MEMORY * way + (1.0 - MEMORY) * 0.5 * (time + average @ time)
    time = np.maximum(time - time[start], 0.0)
    return time / max(float(time.max()), 1e-12)
