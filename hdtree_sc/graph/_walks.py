"""How informative a cut of cells is about walks over their neighbour links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from hdtree_sc.graph._agglomerate import WALK_STEPS
from hdtree_sc.graph._bisect import mutual_information
from hdtree_sc.graph._neighbors import nearest_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

WALK_NEIGHBORS = 15
"""A cell is linked to so many nearest others."""


def entropy_of(side: NDArray[np.bool_]) -> float:
    """Entropy of sides in nats."""
    share = float(np.mean(side).clip(1e-9, 1.0 - 1e-9))
    return float(-share * np.log(share) - (1.0 - share) * np.log(1.0 - share))


def walk_information(
    points: NDArray[np.floating],
    side: NDArray[np.bool_],
    neighbors: NDArray[np.integer],
    queries: NDArray[np.floating],
    query_side: NDArray[np.bool_],
) -> float:
    """Information in nats between the sides of new cells and those on which walks of eight steps from them end.

    Sides weigh as they do among the cells over whose links walks go, so that it is at most the entropy of these, and
    what a table of so few cells has by chance, half a unit for all of them together, is taken off.

    Parameters
    ----------
    points
        Cells over whose links walks go, (n, d).
    side
        Their sides, (n,).
    neighbors
        Their nearest neighbours, (n, k).
    queries
        Cells from which walks begin, (m, d): the first step is to one of the nearest ``points``.
    query_side
        Their sides, (m,).
    """
    if query_side.all() or not query_side.any():
        return 0.0
    n, k = neighbors.shape
    links = sparse.csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), neighbors.ravel())), shape=(n, n))
    links = links + links.T
    step = sparse.diags(1.0 / np.asarray(links.sum(1)).ravel()) @ links
    ends = side.astype(float)
    for _ in range(WALK_STEPS - 1):
        ends = step @ ends
    near, _ = nearest_neighbors(points, WALK_NEIGHBORS, queries=queries)
    chance = ends[near].mean(1)
    weight = np.array([1.0 - side.mean(), side.mean()])
    second = np.array([chance[~query_side].mean(), chance[query_side].mean()])
    found = mutual_information(weight[:, None] * np.stack([1.0 - second, second], 1))
    return max(float(found) - 0.5 / len(queries), 0.0)
