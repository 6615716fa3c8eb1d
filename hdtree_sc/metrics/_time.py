"""Whether neighbours in a space are of one time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.metrics import _check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def time_neighborhood_ratio(X: ArrayLike, time: ArrayLike, k: int = 30) -> float:
    """Share of a cell's nearest neighbours that are of its time bin, averaged over cells, then over bins.

    Every bin counts the same, however few its cells. Neighbours are exact, and a cell is none of its own.

    Parameters
    ----------
    X
        ``(n, d)``: latent or any other coordinates; Euclidean.
    time
        ``(n,)``: time bin of each cell.
    k
        Neighbours of each cell.

    Returns
    -------
    Ratio in [0, 1].

    Raises
    ------
    ValueError
        Missing times, coordinates that are not finite, different lengths, or not more than `k` cells.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> X = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]]
    >>> ht.metrics.time_neighborhood_ratio(X, [0, 0, 0, 1, 1, 1], k=2)
    1.0
    """
    from sklearn.neighbors import NearestNeighbors

    coordinates = _check.points("X", X)
    n = _check.same_length(X=coordinates, time=time)
    bins, n_bins = _check.groups("time", time)
    if not 1 <= k < n:
        msg = f"k={k} neighbours of each of {n} cells: k must be 1 to {n - 1}."
        raise ValueError(msg)
    # asked without points, the index leaves each point out of its own neighbours, also if it has duplicates
    neighbors = NearestNeighbors(n_neighbors=k).fit(coordinates).kneighbors(return_distance=False)
    same = (bins[neighbors] == bins[:, None]).mean(axis=1)
    per_bin = np.bincount(bins, weights=same, minlength=n_bins) / np.bincount(bins, minlength=n_bins)
    return float(per_bin.mean())
