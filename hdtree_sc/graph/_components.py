"""Connected parts of a cell graph, its bridges taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse


def on_bridge(graph: sparse.csr_matrix, bridges: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each stored edge of a graph is a bridge.

    Parameters
    ----------
    graph
        Cell graph, (n, n).
    bridges
        Rows of the two cells of each bridge, (b, 2).
    """
    n = graph.shape[0]
    source = np.repeat(np.arange(n, dtype=np.int64), np.diff(graph.indptr))
    both_ways = np.concatenate([bridges[:, 0] * n + bridges[:, 1], bridges[:, 1] * n + bridges[:, 0]])
    return np.isin(source * n + graph.indices, both_ways)


def without_bridges(graph: sparse.csr_matrix, bridges: NDArray[np.int64]) -> sparse.csr_matrix:
    """The graph less its bridges."""
    if len(bridges) == 0:
        return graph
    out = graph.copy()
    out.data = np.where(on_bridge(graph, bridges), 0.0, graph.data)
    out.eliminate_zeros()
    return out


def parts_of(distances: sparse.csr_matrix, bridges: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """Part of each cell, (n,): 0 holds the start, the others are numbered by size, largest first.

    Parameters
    ----------
    distances
        Cell graph, (n, n).
    bridges
        Rows of the two cells of each bridge, (b, 2).
    start
        Row of the root cell.
    """
    n_parts, part = connected_components(without_bridges(distances, bridges), directed=False)
    rank = -np.bincount(part)
    rank[part[start]] = rank.min() - 1
    number = np.empty(n_parts, dtype=np.int64)
    number[np.argsort(rank, kind="stable")] = np.arange(n_parts)
    return number[part]
