"""The data and their tree as one TreeData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hdtree_sc.tree import Tree, node_of_cells, subtree_sums

if TYPE_CHECKING:
    import networkx as nx
    from anndata import AnnData
    from numpy.typing import NDArray


def treedata(adata: AnnData, key: str = "hdtree") -> Any:
    """The data as a TreeData whose tree ends in the cells, for pycea and other tools of lineage tracing.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`.
    key
        Key of the tree, and of ``obst``.

    Returns
    -------
    A new ``treedata.TreeData`` with all that ``adata`` holds. ``.obst["<key>"]`` is a ``networkx.DiGraph``: the nodes
    of the tree, and every cell as a leaf under the node that holds it (its leaf, or an inner node). Nodes without cells
    are left out. Nodes have ``depth`` (0 at the root to 1 at the cells; by heights where the tree has them, else by
    level), ``hdtree_node`` (name of the node, for a cell that of its node), ``n_cells`` and ``is_cell``; edges have
    ``length``, the difference in depth. Where cells have names that nodes have as well, the nodes are called
    ``"node <name>"``. Draw it with ``pycea.pl.tree(tdata, tree="<key>", depth_key="depth")``.

    Raises
    ------
    ImportError
        If TreeData is not installed.
    KeyError
        If the tree or the leaf column is missing.
    ValueError
        If some cells have no node, cells have the same name, or there are no cells.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> tdata = ht.get.treedata(adata)
    >>> list(tdata.obst)
    ['hdtree']
    """
    tree = Tree.from_adata(adata, key=key)
    node = node_of_cells(adata, tree, key=key)
    if adata.n_obs == 0:
        msg = "adata holds no cells."
        raise ValueError(msg)
    if not adata.obs_names.is_unique:
        msg = "adata.obs_names are not unique, and cells are nodes of the tree: run adata.obs_names_make_unique()."
        raise ValueError(msg)
    try:
        import treedata as td
    except ImportError as error:
        msg = 'hdtree_sc.get.treedata needs TreeData: pip install "hdtree-sc[lineage]".'
        raise ImportError(msg) from error
    made = td.TreeData(adata.copy(), label=None)
    made.obst[key] = cell_tree(tree, node, [str(name) for name in adata.obs_names])
    return made


def cell_tree(tree: Tree, node: NDArray[np.int64], cells: list[str]) -> nx.DiGraph:
    """The graph described under :func:`treedata`.

    Parameters
    ----------
    tree
        The tree.
    node
        Position of the node of each cell, (n_cells,).
    cells
        Names of the cells.
    """
    import networkx as nx

    n_cells = subtree_sums(tree, np.bincount(node, minlength=len(tree))).astype(np.int64)
    depth = _depth(tree, n_cells)
    clash = any(name in tree for name in cells)
    names = [f"node {name}" if clash else name for name in tree.nodes]
    graph: nx.DiGraph = nx.DiGraph()
    for i in np.flatnonzero(n_cells):
        graph.add_node(
            names[i], depth=float(depth[i]), hdtree_node=tree.nodes[i], n_cells=int(n_cells[i]), is_cell=False
        )
        above = tree.parents[i]
        if above >= 0:
            graph.add_edge(names[above], names[i], length=float(depth[i] - depth[above]))
    graph.add_nodes_from(
        (cell, {"depth": 1.0, "hdtree_node": tree.nodes[i], "n_cells": 1, "is_cell": True})
        for cell, i in zip(cells, node.tolist(), strict=True)
    )
    graph.add_edges_from(
        (names[i], cell, {"length": float(1.0 - depth[i])}) for cell, i in zip(cells, node.tolist(), strict=True)
    )
    return graph


def _depth(tree: Tree, n_cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """From 0 at the root to below 1 at the lowest nodes: cells hang at 1."""
    if tree.heights.max() > 0:
        # as pl.tree draws them: the square root opens up the low splits
        high = np.sqrt(np.maximum(tree.heights, 0.0))
        depth = 1.0 - high / high.max()
    else:
        depth = tree.levels / (tree.levels[n_cells > 0].max() + 1.0)
    # a child is never above its parent, and there is room for its cells below it
    for i in range(1, len(tree)):
        depth[i] = max(depth[i], depth[tree.parents[i]])
    return 0.9 * depth
