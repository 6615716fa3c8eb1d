"""How far each cell of a graph is from where it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTHING_STEPS = 50
MEMORY = 0.02
"""Share of its own distance that a cell keeps at each smoothing step."""


def order_from(
    distances: sparse.csr_matrix,
    connectivities: sparse.csr_matrix,
    starts: NDArray[np.integer],
    part: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Pseudotime in [0, 1] of the cells of a graph, within each of its parts.

    Parameters
    ----------
    distances
        Edge lengths, (n, n).
    connectivities
        Edge strengths, (n, n).
    starts
        Row of the cell that each part starts from, (n_parts,).
    part
        Part of each cell, (n,).
    """
    way = dijkstra(distances, directed=False, indices=starts, min_only=True)
    # a user's own graph may fall apart: what cannot be reached is as far as what is farthest
    way[~np.isfinite(way)] = way[np.isfinite(way)].max()
    time = np.maximum(smoothed(way, connectivities), 0.0)
    time = np.maximum(time - time[starts][part], 0.0)
    longest = np.zeros(len(starts))
    np.maximum.at(longest, part, time)
    return time / np.maximum(longest, 1e-12)[part]


def smoothed(way: NDArray[np.float64], strengths: sparse.csr_matrix) -> NDArray[np.float64]:
    """Ways averaged over neighbours, again and again.

    Parameters
    ----------
    way
        Way to each cell, (n,).
    strengths
        Weight of each neighbour, (n, n); a cell without any keeps what it has.
    """
    total = np.asarray(strengths.sum(1)).ravel()
    average = sparse.diags(1.0 / np.maximum(total, 1e-12)) @ strengths
    alone = total <= 0
    time = way
    for _ in range(SMOOTHING_STEPS):
        time = MEMORY * way + (1.0 - MEMORY) * 0.5 * (time + np.where(alone, time, average @ time))
    return time
