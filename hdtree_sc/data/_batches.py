"""Neighbours of cells in other batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from hdtree_sc.graph import nearest_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

GUIDES = 50
"""A cell is moved by this many cells of its batch that have a partner."""
REACH = 1.25
"""A neighbour in another batch may be so many times farther than the k-th in the own batch."""


def partners_across(
    points: NDArray[np.floating],
    batch: NDArray[np.integer],
    within: NDArray[np.integer],
    k: int,
    *,
    seed: int | None = 0,
) -> NDArray[np.int32]:
    """Partners of each cell in other batches, where it has any.

    Partners are mutual nearest neighbours: of two cells of different batches each is among the nearest that the other
    has outside its own batch. A type that only one batch holds so keeps to itself, whatever the batches' compositions.
    A cell without a partner takes those of its neighbours within its batch, so that not only the border of a type is
    drawn over.

    Parameters
    ----------
    points
        Positions, (n, d).
    batch
        Batch of each cell, (n,).
    within
        Nearest neighbours of each cell in its own batch, (n, m).
    k
        Number of partners wanted of each cell; partners repeat where there are fewer.
    seed
        Seed of the approximate neighbour search and of what repeats.

    Returns
    -------
    Indices (n, k); -1 in the rows of cells without any.

    References
    ----------
    Haghverdi et al., Nature Biotechnology 2018 (mutual nearest neighbours).
    """
    n = len(points)
    one_way = sparse.csr_matrix((n, n), dtype=np.float32)
    for value in np.unique(batch):
        own, others = np.flatnonzero(batch == value), np.flatnonzero(batch != value)
        found, _ = nearest_neighbors(points[others], k, queries=points[own], seed=seed)
        rows = np.repeat(own, found.shape[1])
        one_way += sparse.csr_matrix((np.ones(found.size, np.float32), (rows, others[found.ravel()])), shape=(n, n))
    mutual = one_way.multiply(one_way.T).tocsr()
    lonely = np.diff(mutual.indptr) == 0
    if lonely.any():
        rows = np.repeat(np.arange(n), within.shape[1])
        near = sparse.csr_matrix((np.ones(within.size, np.float32), (rows, within.ravel())), shape=(n, n))
        mutual = (mutual + sparse.diags(lonely.astype(np.float32)) @ near @ mutual).tocsr()
    held = np.diff(mutual.indptr)
    # every partner once, in random order, then again
    start = np.random.default_rng(seed).random(n)
    turn = (start[:, None] * held[:, None] + np.arange(k)).astype(np.int64) % np.maximum(held, 1)[:, None]
    pick = np.minimum(mutual.indptr[:-1, None] + turn, max(mutual.nnz - 1, 0))
    out = mutual.indices[pick] if mutual.nnz else np.zeros((n, k), np.int32)
    out[held == 0] = -1
    return out.astype(np.int32)


def align(
    points: NDArray[np.floating], batch: NDArray[np.integer], k: int, *, rounds: int = 4, seed: int | None = 0
) -> NDArray[np.float32]:
    """Points with the batches moved onto each other where they share cells.

    In each round every cell with partners in other batches wants to go half way to them; all cells of the batch follow
    the wishes of the nearest that have one. Only used to find neighbours: no values of cells are changed by it.

    Parameters
    ----------
    points
        Positions, (n, d).
    batch
        Batch of each cell, (n,).
    k
        Number of neighbours and of partners of each cell.
    rounds
        Number of rounds.
    seed
        Seed of the searches.
    """
    out = np.asarray(points, dtype=np.float32).copy()
    for _ in range(rounds):
        partners = partners_across(out, batch, within_batches(out, batch, k, seed=seed), k, seed=seed)
        paired = partners[:, 0] >= 0
        wish = np.zeros_like(out)
        wish[paired] = 0.5 * (out[partners[paired]].mean(1) - out[paired])
        moved = out.copy()
        for value in np.unique(batch):
            own = np.flatnonzero(batch == value)
            guides = own[paired[own]]
            if len(guides) == 0:
                continue
            near, distance = nearest_neighbors(out[guides], GUIDES, queries=out[own], seed=seed)
            weight = np.exp(-np.square(distance / max(float(np.median(distance)), 1e-12)))
            weight /= np.maximum(weight.sum(1, keepdims=True), 1e-12)
            # one guide at a time: (n, guides, d) at once would be fifty times the data
            for column in range(near.shape[1]):
                moved[own] += weight[:, column, None] * wish[guides[near[:, column]]]
        out = moved
    return out


def within_batches(
    points: NDArray[np.floating], batch: NDArray[np.integer], k: int, *, seed: int | None = 0
) -> NDArray[np.int32]:
    """Nearest neighbours (n, k) of each cell in its own batch; they repeat in a batch of fewer cells."""
    within = np.empty((len(points), k), dtype=np.int32)
    for value in np.unique(batch):
        own = np.flatnonzero(batch == value)
        if len(own) == 1:
            within[own] = own
            continue
        found = own[nearest_neighbors(points[own], k, seed=seed)[0]]
        within[own] = found[:, np.arange(k) % found.shape[1]]
    return within


def neighbors_in_batches(
    points: NDArray[np.floating], batch: NDArray[np.integer], k: int, *, seed: int | None = 0
) -> NDArray[np.int32]:
    """Neighbours that a positive is drawn from when cells come in batches: as many of each batch.

    Batches are aligned first. A neighbour of another batch counts if it is not much farther than the cell's farthest
    neighbour in its own; the place of one that does not is taken by one that is of its own. So a type that one batch
    holds alone keeps to itself.

    Parameters
    ----------
    points
        Positions, (n, d).
    batch
        Batch of each cell, (n,).
    k
        Number of neighbours in its own batch.
    seed
        Seed of the search.

    Returns
    -------
    Indices (n, m): as many of each batch, about 2 k in all, at least 3 of each.
    """
    values = np.unique(batch)
    each = max(-(-2 * k // len(values)), 3)
    aligned = align(points, batch, k, seed=seed)
    within = within_batches(aligned, batch, k, seed=seed)
    reach = REACH * np.linalg.norm(aligned - aligned[within[:, -1]], axis=1)
    rng = np.random.default_rng(seed)
    blocks = []
    for value in values:
        own, others = np.flatnonzero(batch == value), np.flatnonzero(batch != value)
        found, distance = nearest_neighbors(aligned[own], each, queries=aligned[others], seed=seed)
        block = within[:, rng.permutation(np.arange(max(each, k)) % k)[:each]]
        block[others, : found.shape[1]] = np.where(
            distance <= np.maximum(reach[others, None], reach[own[found]]), own[found], block[others, : found.shape[1]]
        )
        blocks.append(block)
    return np.concatenate(blocks, 1)
