"""A tree as a table of nodes, in AnnData and as a networkx graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_uns
from hdtree_sc.tree import _build

if TYPE_CHECKING:
    from collections.abc import Mapping

    import networkx as nx
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree._tree import Tree

_OPTIONAL = {"height": "heights", "n_cells": "n_cells", "length": "lengths", "support": "support"}
"""Columns and graph attributes, and the arguments of `Tree` they become."""
CLADE = " clade"
"""Ends the name of an inner node whose own cells are a leaf."""


def to_frame(tree: Tree) -> pd.DataFrame:
    """See `Tree.to_frame`."""
    names = np.asarray(tree.nodes, dtype=object)
    parent = np.append(np.array([""], dtype=object), names[tree.parents[1:]])
    columns: dict[str, Any] = {
        "parent": parent,
        "level": tree.levels.copy(),
        "n_cells": tree.n_cells.copy(),
        "is_leaf": tree.is_leaf_mask,
        "height": tree.heights.copy(),
    }
    steps = _build.height_steps(tree.parents, tree.heights) if len(tree) > 1 else None
    if not _build.same(tree.lengths, steps):
        columns["length"] = np.full(len(tree), np.nan) if tree.lengths is None else tree.lengths.copy()
    if tree.support is not None:
        columns["support"] = tree.support.copy()
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def from_frame(nodes: pd.DataFrame) -> dict[str, Any]:
    """Arguments for `Tree`, without the codebook; see `Tree.from_frame`."""
    if not isinstance(nodes, pd.DataFrame):
        msg = f"nodes: a DataFrame with a row for each node is wanted, got {type(nodes).__name__}."
        raise TypeError(msg)
    if "parent" not in nodes.columns:
        msg = f"nodes: a column 'parent' (name of each node's parent) is needed; there are {listing(nodes.columns)}."
        raise ValueError(msg)
    names = ["" if pd.isna(name) else str(name) for name in nodes.index]
    _build.check_names(names)
    above = nodes["parent"].astype(object)
    missing = above.isna().to_numpy() | (above == "").to_numpy(dtype=bool)
    found = pd.Index(names, dtype=object).get_indexer(above.astype(str).to_numpy(dtype=object))
    # some writers turn a missing parent into text
    missing |= (found < 0) & above.isin(["nan", "None", "<NA>"]).to_numpy()
    wrong = np.flatnonzero((found < 0) & ~missing)
    if len(wrong):
        child, parent = names[wrong[0]], str(above.iloc[wrong[0]])
        msg = f"nodes: the parent {parent!r} of node {child!r} is not a node; they are {listing(names)}."
        raise ValueError(msg)
    given = {column: argument for column, argument in _OPTIONAL.items() if column in nodes.columns}
    optional = {argument: nodes[column].to_numpy(dtype=float) for column, argument in given.items()}
    return {"names": names, "parents": np.where(missing, -1, found), **optional}


def from_parents(parents: Mapping[str, str] | pd.Series, *, own_leaf: bool) -> dict[str, Any]:
    """Arguments for `Tree`; see `Tree.from_parents`."""
    if not hasattr(parents, "items"):
        msg = f"parents: a mapping or a Series of each child to its parent is wanted, got {type(parents).__name__}."
        raise TypeError(msg)
    pairs = [("" if pd.isna(child) else str(child), above) for child, above in parents.items()]
    up = {child: "" if pd.isna(above) or above == "" else str(above) for child, above in pairs}
    if len(up) < len(pairs):
        twice = pd.Index([child for child, _ in pairs])
        msg = f"parents: {listing(twice[twice.duplicated()].unique())} have more than one parent; a tree allows one."
        raise ValueError(msg)
    # a parent that is nobody's child is a root, and roots are joined
    for above in dict.fromkeys(up.values()):
        if above:
            up.setdefault(above, "")
    if own_leaf:
        inner = set(up.values()) - {""}
        up = {child + CLADE if child in inner else child: above and above + CLADE for child, above in up.items()}
        up |= {name: name + CLADE for name in sorted(inner)}
    roots = [child for child, above in up.items() if not above]
    if len(roots) > 1:
        name = "root"
        while name in up:
            name += "_"
        up = {name: "", **{child: above or name for child, above in up.items()}}
    frame = pd.DataFrame({"parent": list(up.values())}, index=pd.Index(list(up), dtype=object))
    return from_frame(frame)


def to_networkx(tree: Tree) -> nx.DiGraph:
    """See `Tree.to_networkx`."""
    import networkx as nx

    graph: nx.DiGraph = nx.DiGraph()
    for name, level, height, n_cells in zip(
        tree.nodes, tree.levels.tolist(), tree.heights.tolist(), tree.n_cells.tolist(), strict=True
    ):
        graph.add_node(name, level=level, height=height, n_cells=n_cells)
    if tree.support is not None:
        known = np.flatnonzero(~np.isnan(tree.support)).tolist()
        nx.set_node_attributes(graph, {tree.nodes[i]: float(tree.support[i]) for i in known}, "support")
    lengths = np.full(len(tree), np.nan) if tree.lengths is None else tree.lengths
    for node, (above, length) in enumerate(zip(tree.parents.tolist(), lengths.tolist(), strict=True)):
        if above >= 0:
            graph.add_edge(tree.nodes[above], tree.nodes[node], **({} if np.isnan(length) else {"length": length}))
    return graph


def from_networkx(graph: nx.DiGraph) -> dict[str, Any]:
    """Arguments for `Tree`; see `Tree.from_networkx`."""
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        msg = f"graph: a networkx.DiGraph is wanted, got {type(graph).__name__}."
        raise TypeError(msg)
    if not graph.is_directed():
        msg = "graph: a directed one is needed (edges parent to child), this is undirected; orient it from its root."
        raise ValueError(msg)
    many = [node for node, degree in graph.in_degree() if degree > 1]
    if many:
        msg = f"graph: nodes with more than one parent: {listing(many)}; in a tree each has one."
        raise ValueError(msg)
    # roots first, then every child where its parent's edges list it: that is the order of the children
    children = [child for _, child in graph.edges()]
    seen = set(children)
    nodes = [node for node in graph.nodes if node not in seen] + children
    position = {node: i for i, node in enumerate(nodes)}
    parents = np.full(len(nodes), -1, dtype=np.int64)
    lengths = np.full(len(nodes), np.nan)
    for above, child, length in graph.edges(data="length"):
        parents[position[child]] = position[above]
        lengths[position[child]] = np.nan if length is None else length
    out: dict[str, Any] = {"names": [str(node) for node in nodes], "parents": parents, "lengths": lengths}
    for attribute in ("height", "n_cells", "support"):
        values: NDArray[np.float64] = np.array(
            [np.nan if (value := graph.nodes[node].get(attribute)) is None else value for node in nodes], dtype=float
        )
        if attribute == "support" or not np.isnan(values).any():
            out[_OPTIONAL[attribute]] = values
    return out


def from_adata(adata: AnnData, key: str) -> dict[str, Any]:
    """Arguments for `Tree`; see `Tree.from_adata`."""
    run = "hdtree_sc.tl.tree(adata, model)"
    stored = require_uns(adata, key, run)
    if not hasattr(stored, "keys") or "nodes" not in stored:
        msg = f"adata.uns[{key!r}] holds no tree (no 'nodes' in it): run {run} first, or give the key of a tree."
        raise KeyError(msg)
    # the support that tl.tree_support found stays in the table: in newick the nodes of a model keep their names
    nodes = stored["nodes"].drop(columns="support", errors="ignore")
    return {**from_frame(nodes), "codebook": stored.get("codebook")}
