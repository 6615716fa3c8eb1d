"""The graph of cells: which are joined, how long and how strong their edges are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from hdtree_sc.graph._agglomerate import group_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

BRIDGE_CELLS = 500
"""A bridge between parts of the cell graph joins the closest pair among so many cells of each."""


def joined_cells(*neighbors: NDArray[np.integer]) -> sparse.csr_matrix:
    """Which cells are neighbours in any of some spaces, (n, k) each; symmetric (n, n)."""
    target = np.concatenate(neighbors, 1)
    n, k = target.shape
    source = np.repeat(np.arange(n), k)
    joined = sparse.coo_matrix((np.ones(n * k, bool), (source, target.ravel())), shape=(n, n)).tocsr()
    return joined + joined.T


def cell_graph(
    expression: NDArray[np.floating],
    latent: NDArray[np.floating],
    joined: sparse.csr_matrix,
    width: NDArray[np.floating],
    *,
    trusted: sparse.csr_matrix | None = None,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix, NDArray[np.int64]]:
    """Lengths and strengths of the edges between cells.

    Parameters
    ----------
    expression
        Expression components, (n, p).
    latent
        Latents, (n, d).
    joined
        Which cells are joined, symmetric (n, n).
    width
        How far each cell's neighbours reach in the latent, (n,).
    trusted
        Those of them that have a strength, symmetric (n, n); all by default.

    Returns
    -------
    Distances in expression and connectivities in (0, 1], a Gaussian of the latent distance as wide as ``width``. Both
    symmetric and connected. Then the bridges that made them so, rows of two cells, (b, 2).
    """
    n = len(expression)
    trusted = joined if trusted is None else trusted
    bridges = _bridges(trusted, expression)
    one_way = sparse.coo_matrix((np.ones(len(bridges), bool), tuple(bridges.T)), shape=(n, n)).tocsr()
    bridging = one_way + one_way.T
    edges, strong = (joined + bridging).tocoo(), (trusted + bridging).tocoo()
    length = edge_lengths(expression, edges.row, edges.col)
    width = np.maximum(width, 1e-12)
    squared = np.square(edge_lengths(latent, strong.row, strong.col)) / (width[strong.row] * width[strong.col])
    strength = np.maximum(np.exp(-squared), 1e-6)
    shape = (n, n)
    # identical cells are a hair apart: a stored zero would read as no edge
    distances = sparse.csr_matrix((np.maximum(length, 1e-6).astype(np.float32), (edges.row, edges.col)), shape=shape)
    connectivities = sparse.csr_matrix((strength.astype(np.float32), (strong.row, strong.col)), shape=shape)
    return distances, connectivities, bridges


def edge_lengths(
    points: NDArray[np.floating], source: NDArray[np.integer], target: NDArray[np.integer], block: int = 1_000_000
) -> NDArray[np.float64]:
    """Distances (m,) between points (n, d) that edges (m,) join, worked out a block of edges at a time."""
    out = np.empty(len(source))
    for start in range(0, len(source), block):
        part = slice(start, start + block)
        out[part] = np.linalg.norm(points[source[part]] - points[target[part]], axis=1)
    return out


def _bridges(joined: sparse.csr_matrix, points: NDArray[np.floating]) -> NDArray[np.int64]:
    """Pairs (b, 2) that make a cell graph connected: along the shortest tree over the centres of its parts."""
    n_parts, part = connected_components(joined, directed=False)
    if n_parts == 1:
        return np.empty((0, 2), dtype=np.int64)
    size = np.bincount(part)
    centres = group_means(points, part)
    order = np.argsort(part, kind="stable")
    members = np.split(order, np.cumsum(size)[:-1])
    tree = minimum_spanning_tree(sparse.csr_matrix(pairwise(centres) + 1e-9)).tocoo()
    pairs = []
    for a, b in zip(tree.row, tree.col, strict=True):
        left = _closest(members[a], points, centres[b])
        right = _closest(members[b], points, centres[a])
        apart = pairwise(points[left], points[right])
        i, j = np.unravel_index(apart.argmin(), apart.shape)
        pairs.append((left[i], right[j]))
    return np.array(pairs, dtype=np.int64)


def _closest(cells: NDArray[np.integer], points: NDArray[np.floating], to: NDArray[np.floating]) -> NDArray[np.integer]:
    if len(cells) <= BRIDGE_CELLS:
        return cells
    return cells[np.argpartition(np.square(points[cells] - to).sum(1), BRIDGE_CELLS)[:BRIDGE_CELLS]]


def pairwise(a: NDArray[np.floating], b: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    b = a if b is None else b
    return np.sqrt(np.square(a[:, None].astype(float) - b[None]).sum(-1))
