"""Cells in a space: the nearest to each, the one in the middle of a group, a choice spread over all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_EXACT = 80_000
"""Up to this many points the search is exact: 50,000 take 5 s of two cores, and pynndescent compiles for 40 s in every
process before it starts."""


def nearest_neighbors(
    points: NDArray[np.floating],
    k: int,
    *,
    queries: NDArray[np.floating] | None = None,
    seed: int | None = 0,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Nearest other points by Euclidean distance.

    Exact for at most 80,000 points, approximate (pynndescent, called directly: scanpy's way to it fails with
    pynndescent 0.7 from 8,192 cells on) for more.

    Parameters
    ----------
    points
        Positions, (n, d).
    k
        Number of neighbours; at most n - 1 are returned, or n for queries.
    queries
        Other points, (m, d), whose neighbours are wanted; by default those of each point itself.
    seed
        Seed of the approximate search.

    Returns
    -------
    Indices (n, k) and distances (n, k), nearest first, the point itself excluded; (m, k) for queries.

    References
    ----------
    Approximate search: Dong, Moses and Li, Efficient k-nearest neighbor graph construction, WWW (2011).
    """
    points = np.ascontiguousarray(points, dtype=np.float32)
    n = len(points)
    k = min(k, n - 1 if queries is None else n)
    if n <= MAX_EXACT:
        distances, indices = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(queries)
        return indices.astype(np.int32), distances.astype(np.float32)
    from pynndescent import NNDescent

    index = NNDescent(points, n_neighbors=k + 1, random_state=seed)
    if queries is not None:
        indices, distances = index.query(np.ascontiguousarray(queries, dtype=np.float32), k=k)
        return indices.astype(np.int32), distances.astype(np.float32)
    indices, distances = index.neighbor_graph
    return without_self(indices, distances, k)


def without_self(
    indices: NDArray[np.integer], distances: NDArray[np.floating], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Drop each row's own index wherever it stands (duplicates may stand before it) and keep k columns."""
    own = indices == np.arange(len(indices))[:, None]
    # a row that does not list itself loses its farthest neighbour instead
    own[~own.any(1), -1] = True
    order = np.argsort(own, axis=1, kind="stable")[:, :k]
    return (
        np.take_along_axis(indices, order, 1).astype(np.int32),
        np.take_along_axis(distances, order, 1).astype(np.float32),
    )


def spread_rows(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of ``n`` rows, in order: all, or a fixed random choice, as a stride may follow how cells lie."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).permutation(n)[:most])


def medoid(points: NDArray[np.floating], cells: NDArray[np.integer]) -> int:
    """The cell that is nearest to the mean of some cells: where a group of cells stands."""
    chosen = points[cells]
    return int(cells[np.square(chosen - chosen.mean(0)).sum(1).argmin()])
