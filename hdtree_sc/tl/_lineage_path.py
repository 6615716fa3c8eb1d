"""The way from one group of cells to another over the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from hdtree_sc._errors import listing, require_obs, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.tl._root import cells_of_group
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def lineage_path(
    adata: AnnData,
    source: str,
    target: str,
    *,
    groupby: str | None = None,
    key: str = "hdtree",
) -> pd.DataFrame:
    """Shortest path over the lineage graph between two nodes, cells or groups.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    source
        Where the path starts: a group of ``groupby``, or without it a node or the name of a cell.
    target
        Where it ends, given in the same way.
    groupby
        ``obs`` column of groups. A group stands at the leaf that holds most of its cells; the table then says which
        group is the most frequent in each node.
    key
        Key of the tree.

    Returns
    -------
    One row per node from ``source`` to ``target``: ``node``, ``order``, ``n_cells``, ``distance`` (length of the path
    so far) and, with ``groupby``, ``composition`` (most frequent group) and ``share`` (its part of the cells).

    Sets the following fields:

    ``adata.uns["<key>"]["paths"]["<source> -> <target>"]`` : DataFrame
        The same table.
    ``adata.uns["<key>"]["last_path"]`` : str
        Its name.

    Raises
    ------
    KeyError
        If the graph is missing.
    ValueError
        If source or target does not exist; the message lists what does.
    """
    keys = Keys(key)
    stored = require_uns(adata, key, "hdtree_sc.tl.tree(adata, model) and hdtree_sc.tl.lineage_graph(adata)")
    if "graph" not in stored:
        msg = f"adata.uns[{key!r}] has no 'graph': run hdtree_sc.tl.lineage_graph(adata, key={key!r}) first."
        raise KeyError(msg)
    shape = Tree.from_adata(adata, key=key)
    leaf = shape.index(require_obs(adata, keys.leaf, "hdtree_sc.tl.tree(adata, model)"))
    ends = [
        _node_of(adata, shape, leaf, name, groupby, argument)
        for name, argument in ((source, "source"), (target, "target"))
    ]
    route, way = _shortest(shape, stored["graph"], *ends)
    table = _describe(adata, shape, leaf, route, way, groupby)
    name = f"{source} -> {target}".replace("/", "|")
    stored.setdefault("paths", {})[name] = table.copy()
    stored["last_path"] = name
    return table


def _node_of(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], name: str, groupby: str | None, argument: str
) -> int:
    if groupby is not None:
        cells = cells_of_group(adata, groupby, name, argument=argument)
        held, size = np.bincount(leaf[cells], minlength=len(shape)), np.bincount(leaf, minlength=len(shape))
        # among leaves with as many of its cells, the one that is most its own
        return int(np.lexsort((held / np.maximum(size, 1), held))[-1])
    if name in shape:
        return int(shape.index(name))
    if name in adata.obs_names:
        return int(leaf[adata.obs_names.get_loc(name)])
    msg = (
        f"{argument}: {name!r} is neither a node nor a cell. Nodes: {listing(shape.nodes)}; "
        "for a group name its column (groupby=)."
    )
    raise ValueError(msg)


def _shortest(shape: Tree, graph: pd.DataFrame, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    n = len(shape)
    source, target = shape.index(graph["source"]), shape.index(graph["target"])
    weights = sparse.csr_matrix((graph["weight"].to_numpy(float), (source, target)), shape=(n, n))
    way, before = dijkstra(weights, directed=False, indices=start, return_predecessors=True)
    route = [end]
    while route[-1] != start:
        route.append(int(before[route[-1]]))
    order = np.array(route[::-1])
    return order, way[order]


def _describe(
    adata: AnnData,
    shape: Tree,
    leaf: NDArray[np.int64],
    route: NDArray[np.int64],
    way: NDArray[np.float64],
    groupby: str | None,
) -> pd.DataFrame:
    below = [(leaf >= node) & (leaf < node + shape.sizes[node]) for node in route]
    table = pd.DataFrame(
        {
            "node": [shape.nodes[node] for node in route],
            "order": np.arange(len(route)),
            "n_cells": [int(cells.sum()) for cells in below],
            "distance": way,
        }
    )
    if groupby is not None:
        groups = adata.obs[groupby].astype(object)
        counts = [groups[cells].value_counts() for cells in below]
        table["composition"] = [str(count.index[0]) if len(count) else "" for count in counts]
        table["share"] = [
            float(count.iloc[0] / cells.sum()) if len(count) else 0.0
            for count, cells in zip(counts, below, strict=True)
        ]
    table["groupby"] = groupby or ""
    return table
