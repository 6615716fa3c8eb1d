"""Hand the lineage graph over to scanpy's PAGA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import minimum_spanning_tree

from hdtree_sc._errors import require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import over_expected
from hdtree_sc.tl._groups import NodeGroups, node_groups

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

WEAKEST = 0.01
"""Connectivity of an edge that hardly any link supports, such as a bridge: the least that ``sc.pl.paga`` draws."""


def to_paga(adata: AnnData, key: str = "hdtree", *, groupby: str | None = None, copy: bool = False) -> AnnData | None:
    """Write the graph between leaves as scanpy's PAGA, so that ``sc.pl.paga`` draws it.

    Groups are joined where :func:`hdtree_sc.tl.lineage_graph` joined them. An edge is as strong as in PAGA (Wolf et
    al., 2019): links between the cells of two groups over those expected of groups of their size, at most 1.

    scanpy lays its nodes out with igraph, which it does not install: ``pip install igraph``.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    key
        Key of the tree.
    groupby
        ``obs`` column whose values are nodes of the tree; ``"<key>_leaf"`` by default, or ``"<key>_cut"`` of
        :func:`hdtree_sc.tl.cut_tree`.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.uns["paga"]`` : dict
        ``"connectivities"`` and ``"connectivities_tree"`` (their strongest spanning tree), float64 CSR
        (n_groups, n_groups), in the order of the categories, and ``"groups"``, the column. Bridges, which no link need
        support, have at least 0.01, the least that ``sc.pl.paga`` draws. What was there before is replaced, positions
        too.
    ``adata.uns["<groupby>_sizes"]`` : int64 (n_groups,)
        Cells of each group.
    ``adata.uns["<groupby>_colors"]`` : list
        Colours that go round with the tree, unless there are colours.
    ``adata.obs["<groupby>"]`` : categorical
        As it was, in tree order and without categories that hold no cell.

    Raises
    ------
    KeyError
        If the tree, the graph or the column is missing.
    ValueError
        If the groups are not nodes of the tree, or lie within each other.

    References
    ----------
    Wolf et al. (PAGA), Genome Biol. 20, 59 (2019).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> import scanpy as sc
    >>> ht.tl.to_paga(adata)
    >>> sc.pl.paga(adata, random_state=0, show=False)  # doctest: +ELLIPSIS
    <Axes...
    """
    keys = Keys(key)
    groups = node_groups(adata, groupby, key=key)
    require_uns(adata, keys.neighbors, f"hdtree_sc.tl.lineage_graph(adata, key={key!r})")
    colors = groups.colors(adata)
    joined = _joined(groups, adata.uns[key]["graph"])
    connectivities = _connectivities(groups, adata.obsp[keys.connectivities], joined)

    out = adata.copy() if copy else adata
    groups.write(out, colors)
    out.uns["paga"] = {
        "connectivities": connectivities,
        "connectivities_tree": _strongest_tree(connectivities),
        "groups": groups.column,
    }
    out.uns[f"{groups.column}_sizes"] = groups.sizes
    return out if copy else None


def _joined(groups: NodeGroups, graph: pd.DataFrame) -> NDArray[np.int64]:
    """Pairs of groups that cells join, (n_edges, 2), both ways."""
    cells = graph[graph["kind"].astype(str) != "tree"]
    holder = groups.holder()
    ends = np.stack([holder[groups.tree.index(cells[end].astype(str))] for end in ("source", "target")], axis=1)
    ends = ends[(ends >= 0).all(axis=1) & (ends[:, 0] != ends[:, 1])]
    return np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)


def _connectivities(groups: NodeGroups, linked: sparse.csr_matrix, joined: NDArray[np.int64]) -> sparse.csr_matrix:
    """Observed over expected links of joined groups, as ``scanpy.tl.paga`` counts them on a symmetric graph."""
    code, sizes = groups.values.codes, groups.sizes
    m = len(sizes)
    held = np.flatnonzero(code >= 0)
    member = sparse.csr_matrix((np.ones(len(held)), (held, code[held])), shape=(len(code), m))
    links = sparse.csr_matrix(linked)
    links = (member.T @ (links.astype(bool).astype(float) @ member)).toarray()
    a, b = joined.T if len(joined) else np.empty((2, 0), dtype=np.int64)
    ratio = np.nan_to_num(over_expected(links, sizes)[a, b], nan=1.0)
    return sparse.csr_matrix((np.clip(ratio, WEAKEST, 1.0), (a, b)), shape=(m, m))


def _strongest_tree(connectivities: sparse.csr_matrix) -> sparse.csr_matrix:
    cost = connectivities.copy()
    cost.data = 1.0 / cost.data
    tree = minimum_spanning_tree(cost).tocsr()
    tree.data = 1.0 / tree.data
    return tree
