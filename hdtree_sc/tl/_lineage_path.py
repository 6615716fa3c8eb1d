"""The way from one group of cells to another over the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc._errors import require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.get import joined_name, milestone_of_cells, milestones, text_groups
from hdtree_sc.graph import medoid
from hdtree_sc.tl._root import meaning, named_cells
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

UNITS = 2**40
"""The longest edge in whole units of length: sums of whole numbers are exact, so that equal ways are equal."""


def lineage_path(
    adata: AnnData,
    source: str,
    target: str,
    *,
    groupby: str | None = None,
    min_cells: int | None = None,
    key: str = "hdtree",
) -> pd.DataFrame:
    """Shortest path over the lineage graph between two nodes, cells or groups.

    The path goes from leaf to leaf along edges that cells support, and after :func:`lineage_tree` along the lineage: it
    steps from a milestone to another that no edge of the lineage joins to it only where there is no other way. Inner
    nodes are on it only where cells support no way, as to a leaf without cells, and leaves of fewer than ``min_cells``
    only where there is no other way. The way back has the same nodes.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    source
        Where the path starts: a group of ``groupby``, or without it a node or the name of a cell; where both have one
        name, ``"cell:<name>"`` or ``"node:<name>"``. It starts at the leaf of the medoid of these cells, as
        :func:`hdtree_sc.tl.pseudotime` does with the same root; an inner node so stands for its cells.
    target
        Where it ends, given in the same way.
    groupby
        ``obs`` column of groups; the table then says which group is the most frequent in each node. Cells without a
        group are not in any.
    min_cells
        Leaves with fewer cells are passed only where there is no other way. By default ``min_cells`` of the model (10),
        or a twentieth of the cells where that is less.
    key
        Key of the tree.

    Returns
    -------
    One row per node from ``source`` to ``target``: ``node``, ``order``, ``n_cells`` (an inner node holds none itself),
    ``distance`` (length of the path so far) and, with ``groupby``, ``composition`` (most frequent group) and ``share``
    (its part of the cells).

    Sets the following fields:

    ``adata.uns["<key>"]["paths"]["<source> -> <target>"]`` : DataFrame
        The same table. What a file or the arrow does not allow in a name is written as its code: ``/`` as ``%2F``,
        ``|`` as ``%7C``, ``->`` as ``-%3E``. ``path=`` of other functions takes the names as they are.
    ``adata.uns["<key>"]["last_path"]`` : str
        Its name.

    Raises
    ------
    KeyError
        If the graph is missing.
    ValueError
        If source or target does not exist (the message lists what does), or is the name of both a cell and a node, or
        if ``min_cells`` is negative.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> path = ht.tl.lineage_path(adata, "Neuroblast_ASG_AWA", "AWA", groupby="cell_type")
    >>> path.columns.tolist()
    ['node', 'order', 'n_cells', 'distance', 'composition', 'share', 'groupby']
    >>> path["composition"].iloc[[0, -1]].tolist()
    ['Neuroblast_ASG_AWA', 'AWA']
    """
    stored = require_uns(adata, key, "hdtree_sc.tl.tree(adata, model) and hdtree_sc.tl.lineage_graph(adata)")
    if "graph" not in stored:
        msg = f"adata.uns[{key!r}] has no 'graph': run hdtree_sc.tl.lineage_graph(adata, key={key!r}) first."
        raise KeyError(msg)
    if min_cells is not None and min_cells < 0:
        msg = f"min_cells: {min_cells} given; 0 to pass every leaf, or a number of cells."
        raise ValueError(msg)
    shape = Tree.from_adata(adata, key=key)
    leaf = node_of_cells(adata, shape, key=key, missing=True)
    ends = [
        _stand(adata, shape, leaf, name, groupby, argument, key)
        for name, argument in ((source, "source"), (target, "target"))
    ]
    held = np.bincount(leaf[leaf >= 0], minlength=len(shape))
    least = least_cells(stored.get("params", {}), adata.n_obs) if min_cells is None else min_cells
    off = _off_lineage(adata, shape, leaf, stored["graph"], key)
    route, way = shortest_way(shape, stored["graph"], held < least, *ends, off=off)
    table = _describe(adata, shape, leaf, route, way, groupby)
    name = joined_name((source, target))
    stored.setdefault("paths", {})[name] = table.copy()
    stored["last_path"] = name
    return table


def least_cells(params: Mapping[str, Any], n_cells: int) -> int:
    """Cells below which a leaf is small: as the model had it, less where there are few cells.

    Parameters
    ----------
    params
        What the tree was made with, ``uns[key]["params"]``.
    n_cells
        Number of cells.
    """
    asked = int(params.get("min_cells", params.get("min_leaf_size", 10)))
    return min(asked, max(2, n_cells // 20))


def _stand(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], name: str, groupby: str | None, argument: str, key: str
) -> int:
    """The leaf of the medoid of what a name stands for; a node without cells stands for itself."""
    cells = named_cells(adata, shape, leaf, name, groupby=groupby, argument=argument)
    placed = cells[leaf[cells] >= 0]
    if len(placed):
        latent = np.asarray(require_obsm(adata, Keys(key).latent, "hdtree_sc.tl.tree(adata, model)"))
        return int(leaf[medoid(latent, placed)])
    if len(cells):
        msg = f"{argument}: no cell of {str(name)!r} is on a node (adata.obs[{Keys(key).leaf!r}])."
        raise ValueError(msg)
    return meaning(adata, shape, name, argument=argument)[1]


def _off_lineage(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], graph: pd.DataFrame, key: str
) -> NDArray[np.bool_] | None:
    """Edges between leaves whose milestones no edge of the lineage joins, (n_edges,); None without a lineage."""
    keys = Keys(key)
    if "lineage" not in adata.uns[key] or keys.milestone not in adata.obs:
        return None
    table = milestones(adata, key)
    stone = milestone_of_cells(adata, table, key)
    both = (stone >= 0) & (leaf >= 0)
    counts = np.zeros((len(shape), len(table)), dtype=np.int64)
    np.add.at(counts, (leaf[both], stone[both]), 1)
    # a leaf is of the milestone that most of its cells are of; nodes without cells are of none
    of_node = np.where(counts.any(1), counts.argmax(1), -1)
    above = table.index.get_indexer(table["parent"].astype(str))
    one, other = of_node[shape.index(graph["source"])], of_node[shape.index(graph["target"])]
    joined = (one == other) | (above[one] == other) | (above[other] == one)
    return (one >= 0) & (other >= 0) & ~joined


def shortest_way(
    shape: Tree,
    graph: pd.DataFrame,
    small: NDArray[np.bool_],
    start: int,
    end: int,
    *,
    off: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nodes from one to another, and the length of the way to each.

    Of all ways that with the fewest tree edges, of these that with the fewest edges off the lineage, then that past the
    fewest small nodes, then the shortest, then that of the fewest steps.

    Parameters
    ----------
    shape
        The tree.
    graph
        Edges: ``source``, ``target``, ``kind``, ``weight``.
    small
        Nodes that are no stepping stones, (n_nodes,).
    start, end
        Positions of the two nodes.
    off
        Edges that the lineage does not have, (n_edges,).
    """
    import networkx as nx

    source, target = shape.index(graph["source"]), shape.index(graph["target"])
    length = graph["weight"].to_numpy(float)
    is_tree = (graph["kind"].astype(str) == "tree").to_numpy()
    avoided = small.astype(np.int64)
    avoided[[start, end]] = 0
    passed = avoided[source] + avoided[target]
    away = np.zeros(len(graph), dtype=bool) if off is None else off
    units = np.rint(length / length.max(initial=1e-12) * UNITS).astype(np.int64)
    n = len(shape)
    longest = n * UNITS
    edges: nx.Graph = nx.Graph()
    edges.add_nodes_from(range(n))
    # where two edges join the same nodes the one that cells support counts, so it is added last
    for i in np.lexsort((target, source, -length, ~is_tree)).tolist():
        # Python's whole numbers have no largest: one number holds all that ways are compared by, in turn
        above = (int(is_tree[i]) * n + int(away[i])) * 2 * n + int(passed[i])
        edges.add_edge(int(source[i]), int(target[i]), cost=(above * longest + int(units[i])) * n + 1, length=length[i])
    # always from the same side, so that of equal ways the same is taken there and back
    first, last = sorted((start, end))
    route = nx.dijkstra_path(edges, first, last, weight="cost")
    route = route if route[0] == start else route[::-1]
    steps = [edges[a][b]["length"] for a, b in zip(route[:-1], route[1:], strict=True)]
    return np.array(route), np.concatenate([[0.0], np.cumsum(steps)])


def _describe(
    adata: AnnData,
    shape: Tree,
    leaf: NDArray[np.int64],
    route: NDArray[np.int64],
    way: NDArray[np.float64],
    groupby: str | None,
) -> pd.DataFrame:
    step = np.full(len(shape) + 1, -1)
    step[route] = np.arange(len(route))
    # a cell is on its own leaf only: the last entry is for cells without one
    at = step[leaf]
    n_cells = np.bincount(at[at >= 0], minlength=len(route))
    table = pd.DataFrame(
        {
            "node": [shape.nodes[node] for node in route],
            "order": np.arange(len(route)),
            "n_cells": n_cells,
            "distance": way,
        }
    )
    if groupby is not None:
        groups = text_groups(adata.obs[groupby])
        counted = (at >= 0) & (groups.codes >= 0)
        counts = np.zeros((len(route), len(groups.categories)), dtype=np.int64)
        np.add.at(counts, (at[counted], groups.codes[counted]), 1)
        names = np.array(groups.categories, dtype=object)
        table["composition"] = np.where(counts.any(1), names[counts.argmax(1)], "")
        table["share"] = counts.max(1) / np.maximum(n_cells, 1)
    table["groupby"] = groupby or ""
    return table
