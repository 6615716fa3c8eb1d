"""The graph of the nodes of a tree: which leaves are neighbours, and what joins those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree

from hdtree_sc.graph._agglomerate import group_means, link_counts
from hdtree_sc.graph._cell_graph import pairwise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

MIN_LINKS = 1 / 3
"""Leaves are neighbours from ``MIN_LINKS * k * sqrt(cells / k)`` links on, with the cells of the smaller one.

The border between two leaves grows slower than the leaves do, spurious edges grow with them: the square root is
between.
"""


class NodeEdges(NamedTuple):
    """Edges between the nodes of a tree: positions of both ends, kind and weight, (e,) each."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    kind: list[str]
    weight: NDArray[np.float64]


def node_graph(
    shape: Tree, position: NDArray[np.integer], expression: NDArray[np.floating], neighbors: NDArray[np.integer]
) -> NodeEdges:
    """Edges between the nodes of a tree.

    Parameters
    ----------
    shape
        The tree.
    position
        Position of each cell's leaf in ``shape.nodes``, (n,).
    expression
        Expression components, (n, p).
    neighbors
        Neighbours in expression, (n, k).

    Returns
    -------
    The edges described under :func:`hdtree_sc.tl.lineage_graph`. Leaves without cells have tree edges only.
    """
    held, group = np.unique(position, return_inverse=True)
    m = len(held)
    size = np.bincount(group)
    apart = np.maximum(pairwise(group_means(expression, group)), 1e-9)
    links = link_counts(neighbors, group, m)
    near = are_near(links, size, neighbors.shape[1])
    cost = apart * _detour(links, near)
    bridge = _leaf_bridges(near, cost)
    geodesic = dijkstra(sparse.csr_matrix(np.where(near | bridge, cost, 0.0)), directed=False)

    upper_near, upper_bridge = np.argwhere(np.triu(near)), np.argwhere(np.triu(bridge))
    cells = np.concatenate([upper_near, upper_bridge])
    spread = _spread(shape, held, geodesic)
    child = np.flatnonzero(shape.parents >= 0)
    parent = shape.parents[child]
    step = np.maximum((spread[parent] - spread[child]) / 2.0, 1e-9)
    return NodeEdges(
        source=np.concatenate([held[cells[:, 0]], parent]),
        target=np.concatenate([held[cells[:, 1]], child]),
        kind=["knn"] * len(upper_near) + ["bridge"] * len(upper_bridge) + ["tree"] * len(child),
        weight=np.concatenate([cost[cells[:, 0], cells[:, 1]], step]),
    )


def _leaf_bridges(near: NDArray[np.bool_], cost: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The cheapest edges that join leaves which would fall apart, (m, m)."""
    n_parts, part = connected_components(sparse.csr_matrix(near), directed=False)
    if n_parts == 1:
        return np.zeros_like(near)
    # edges within a part cost next to nothing, so the spanning tree adds only what joins parts
    within = np.where(part[:, None] == part[None], 1e-9 * cost, cost)
    tree = minimum_spanning_tree(sparse.csr_matrix(within)).toarray() > 0
    return (tree | tree.T) & (part[:, None] != part[None])


def are_near(links: NDArray[np.float64], size: NDArray[np.number], k: int) -> NDArray[np.bool_]:
    """Whether two leaves have links enough to be neighbours, (m, m).

    Parameters
    ----------
    links
        Symmetric link counts, (m, m).
    size
        Cells of each leaf, (m,).
    k
        Neighbours of each cell that the links were counted over.
    """
    smaller = np.minimum(size[:, None], size[None])
    near = links >= MIN_LINKS * k * np.sqrt(np.maximum(smaller / k, 1.0))
    np.fill_diagonal(near, val=False)
    return near


def _detour(links: NDArray[np.float64], near: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Factor (m, m) on the distance of two leaves: one for the median edge, less where links are many.

    Leaves that are not joined count as the worst of those that are.
    """
    if not near.any():
        return np.ones_like(links)
    degree = links.sum(1)
    ratio = links / np.outer(degree, degree)
    ratio = np.where(near, ratio, ratio[near].min())
    return np.sqrt(np.median(ratio[near]) / ratio)


def _spread(shape: Tree, held: NDArray[np.integer], geodesic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest distance between two leaves below each node, (n_nodes,)."""
    # pre-order: the leaves below a node are a slice of the leaves
    first = np.searchsorted(held, np.arange(len(shape)))
    last = np.searchsorted(held, np.arange(len(shape)) + shape.sizes)
    return np.array([geodesic[a:b, a:b].max() if b > a else 0.0 for a, b in zip(first, last, strict=True)])
