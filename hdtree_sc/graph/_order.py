"""How far each cell of a graph is from where it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from hdtree_sc.graph._spurious_edges import without_spurious_edges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hdtree_sc.graph._backbone import Backbone

SMOOTHING_STEPS = 50
MEMORY = 0.02
"""Share of its own distance that a cell keeps at each smoothing step."""
DRAWS = 8
"""Replicates of the consensus for each grouping of the cells."""
KEPT_EDGES = 0.5
"""Share of the edges that a replicate keeps."""
FEW_CONTRADICTED, MOST_CONTRADICTED = 0.2, 0.25
"""Share of the links off the tree up to which the order goes along it, and from which on it does not."""
MIN_MILESTONES = 16
"""A tree of fewer is too coarse to order cells along."""
MIN_RATIO = 0.3
"""Links between two groups go where they are fewer than this share of those expected."""


def order_from(
    distances: sparse.csr_matrix,
    connectivities: sparse.csr_matrix,
    starts: NDArray[np.integer],
    part: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Pseudotime in [0, 1] by the shortest way over a graph of cells, within each of its parts.

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
    return finished(dijkstra(distances, directed=False, indices=starts, min_only=True), connectivities, starts, part)


def consensus_order(
    distances: sparse.csr_matrix,
    connectivities: sparse.csr_matrix,
    groupings: Sequence[NDArray[np.integer]],
    starts: NDArray[np.integer],
    part: NDArray[np.integer],
    first_links: sparse.csr_matrix | None = None,
) -> NDArray[np.float64]:
    """Pseudotime in [0, 1] that rests on many ways: the median over graphs from which links were taken.

    A shortest way trusts the weakest link: a handful of cells between two branches make a short cut for all that lies
    behind them. In each replicate links go between groups of cells that are hardly linked, at one of several
    resolutions, since one grouping may cut what another keeps; and of all edges a random half stays, which a way that
    many links support survives and one that few do does not. The first links of all ways stay in every replicate:
    where early cells are in several groups, the others would be reached through late cells only. Each replicate starts
    from one of the cells that they lead to, or from the start: which cell of the first state was named should not
    matter.

    Parameters
    ----------
    distances
        Edge lengths, symmetric (n, n).
    connectivities
        Edge strengths, (n, n), over which ways are averaged in the end.
    groupings
        Group of each cell at each resolution, (n,) each.
    starts
        Row of the cell that each part starts from, (n_parts,).
    part
        Part of each cell, (n,).
    first_links
        Edge lengths from the starts to the cells nearest to them, (n, n), see :func:`links_of_starts`.
    """
    # the same edges at every call: an order is no sample
    rng = np.random.default_rng(0)
    near = [starts[[number]] for number in range(len(starts))]
    if first_links is not None:
        near = [np.append(first_links[start].indices, start) for start in starts]
    ways = []
    for group in groupings:
        edges = sparse.triu(_trusted(distances, group)).tocoo()
        for _ in range(DRAWS):
            kept = rng.random(edges.nnz) < KEPT_EDGES
            graph = sparse.csr_matrix(
                (edges.data[kept], (edges.row[kept], edges.col[kept])), shape=edges.shape, dtype=float
            )
            if first_links is not None:
                graph = graph.maximum(first_links)
            first = np.array([rng.choice(cells) for cells in near])
            way = dijkstra(graph, directed=False, indices=first, min_only=True)
            reached = np.isfinite(way)
            # fewer edges make all ways longer
            ways.append(np.where(reached, way / max(float(np.median(way[reached])), 1e-12), np.nan))
    all_ways = np.array(ways)
    never = np.isnan(all_ways).all(0)
    all_ways[:, never] = np.inf
    return finished(np.nanmedian(all_ways, axis=0), connectivities, starts, part)


def links_of_starts(
    points: NDArray[np.floating], starts: NDArray[np.integer], part: NDArray[np.integer], n_neighbors: int
) -> sparse.csr_matrix:
    """Straight lengths from each start to the cells of its part that are nearest to it, (n, n).

    Parameters
    ----------
    points
        Positions of the cells, in which edges are measured, (n, p).
    starts
        Row of the cell that each part starts from, (n_parts,).
    part
        Part of each cell, (n,).
    n_neighbors
        Number of cells that each start is joined to.
    """
    rows, columns, lengths = [], [], []
    for number, start in enumerate(starts):
        others = np.flatnonzero((part == number) & (np.arange(len(part)) != start))
        apart = np.linalg.norm(points[others] - points[start], axis=1)
        nearest = np.argsort(apart, kind="stable")[:n_neighbors]
        rows.append(np.full(len(nearest), start))
        columns.append(others[nearest])
        lengths.append(np.maximum(apart[nearest], 1e-12))
    place = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_matrix((np.concatenate(lengths).astype(float), place), shape=(len(part), len(part)))


def order_along(
    distances: sparse.csr_matrix,
    connectivities: sparse.csr_matrix,
    time: NDArray[np.float64],
    grown: Backbone,
    start: int,
) -> NDArray[np.float64]:
    """Pseudotime that goes along a tree as far as the links between its milestones agree with it.

    Where they do, ways that may leave the tree nowhere are averaged with the order that was there; where the data are
    no tree, or of few milestones, that order stays. The times of the cells have no part in this.

    Parameters
    ----------
    distances
        Edge lengths, symmetric (n, n).
    connectivities
        Edge strengths, (n, n).
    time
        Pseudotime in [0, 1], (n,).
    grown
        Milestones.
    start
        Row of the root cell.
    """
    trust = np.clip((MOST_CONTRADICTED - grown.contradicted) / (MOST_CONTRADICTED - FEW_CONTRADICTED), 0.0, 1.0)
    if trust == 0.0 or len(grown.parent) < MIN_MILESTONES:
        return time
    edges = distances.tocoo()
    kept = grown.along[grown.group[edges.row], grown.group[edges.col]]
    tree_links = sparse.csr_matrix((edges.data[kept], (edges.row[kept], edges.col[kept])), shape=edges.shape)
    way = dijkstra(tree_links, directed=False, indices=start)
    reached = np.isfinite(way)
    one = np.zeros(len(time), dtype=np.int64)
    tree_order = np.where(reached, finished(way, connectivities, np.array([start]), one), time)
    return (1.0 - trust / 2) * time + trust / 2 * tree_order


def finished(
    way: NDArray[np.float64],
    connectivities: sparse.csr_matrix,
    starts: NDArray[np.integer],
    part: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Pseudotime of the ways to cells: averaged over neighbours, from 0 at the start to 1 in each part.

    Parameters
    ----------
    way
        Way to each cell, (n,); infinite where there is none.
    connectivities
        Edge strengths, (n, n).
    starts
        Row of the cell that each part starts from, (n_parts,).
    part
        Part of each cell, (n,).
    """
    # what cannot be reached is as far as what is farthest
    way = np.where(np.isfinite(way), way, way[np.isfinite(way)].max())
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


def within(distances: sparse.csr_matrix, connectivities: sparse.csr_matrix) -> sparse.csr_matrix:
    """Edge lengths of those edges that have a strength."""
    return sparse.csr_matrix(distances.multiply(connectivities != 0))


def _trusted(distances: sparse.csr_matrix, group: NDArray[np.integer]) -> sparse.csr_matrix:
    """Edge lengths without those between groups that are hardly linked."""
    joined = sparse.csr_matrix(
        (np.ones(distances.nnz, dtype=bool), distances.indices, distances.indptr), shape=distances.shape
    )
    return within(distances, without_spurious_edges(joined, group, MIN_RATIO))
