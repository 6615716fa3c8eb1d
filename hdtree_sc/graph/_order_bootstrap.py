"""How much a pseudotime depends on which cells happened to be sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from hdtree_sc.graph._components import on_bridge
from hdtree_sc.graph._neighbors import medoid
from hdtree_sc.graph._order import smoothed

if TYPE_CHECKING:
    from numpy.typing import NDArray

DETOUR = 4.0
"""Where a way passes a cell or an edge that was not drawn, it is so many times longer.

Neighbours searched again among the drawn cells would reach over the gap. If no way led there, what lies behind a thin
neck would be lost in most replicates.
"""
LEVEL = 0.95
"""Share of the replicates within the interval."""


@dataclass(frozen=True)
class Interval:
    """What the replicates say of each cell, (n,) each."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sd: NDArray[np.float64]


def bootstrap(
    distances: sparse.csr_matrix,
    connectivities: sparse.csr_matrix,
    bridges: NDArray[np.int64],
    starts: NDArray[np.integer],
    part: NDArray[np.integer],
    time: NDArray[np.float64],
    *,
    root_group: NDArray[np.integer] | None,
    latent: NDArray[np.floating],
    n_boot: int,
    seed: int,
) -> Interval:
    """Repeat an order on graphs of resampled cells and edges.

    A replicate draws as many cells as there are, with replacement, and every edge a Poisson(1) number of times. Ways
    avoid cells and edges that were not drawn, and averages weigh neighbours by how often they and the edge were drawn,
    so that a cell that was not drawn gets its value from the others. The start is drawn too: the medoid of
    a resampled group, or the given cell or one of its neighbours, by the strength of their edge. Every replicate is
    stretched to agree best with the estimate, since the end of the scale, the one farthest cell, says nothing about
    the order.

    Parameters
    ----------
    distances, connectivities
        Cell graph, (n, n), the bridges taken out where parts are ordered by themselves.
    bridges
        Rows of the two cells of each bridge that is in the graph, (b, 2); they are in every replicate.
    starts
        Row of the cell that each part starts from, (n_parts,).
    part
        Part of each cell, (n,).
    time
        The estimate, (n,).
    root_group
        Rows of the group whose medoid is the first start; None if that is a cell of its own.
    latent
        Latents, (n, d), in which medoids are found.
    n_boot
        Replicates.
    seed
        Seed of all draws.
    """
    rng = np.random.default_rng(seed)
    edges = _Edges(distances, connectivities, bridges)
    replicates = np.empty((n_boot, len(time)), dtype=np.float32)
    for replicate in replicates:
        begin = np.array([edges.near(start, rng) for start in starts])
        if root_group is not None:
            begin[0] = medoid(latent, rng.choice(root_group, len(root_group)))
        way = edges.replicate(begin, rng)
        way = np.maximum(way - way[begin][part], 0.0)
        across = np.bincount(part, weights=way * time, minlength=len(starts))
        scale = across / np.maximum(np.bincount(part, weights=way**2, minlength=len(starts)), 1e-12)
        replicate[:] = way * scale[part]
    low, high = np.quantile(replicates, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0], axis=0)
    return Interval(
        low=np.clip(np.minimum(low, time), 0.0, 1.0),
        high=np.clip(np.maximum(high, time), 0.0, 1.0),
        sd=replicates.std(0, dtype=float, ddof=1),
    )


class _Edges:
    """A cell graph whose edges can be drawn.

    Parameters
    ----------
    distances, connectivities
        Lengths and strengths, (n, n).
    bridges
        Rows of the two cells of each bridge, (b, 2).
    """

    def __init__(
        self, distances: sparse.csr_matrix, connectivities: sparse.csr_matrix, bridges: NDArray[np.int64]
    ) -> None:
        # a graph from elsewhere may hold an edge in one direction only
        self.lengths = sparse.csr_matrix(distances.maximum(distances.T), dtype=float)
        self.lengths.sort_indices()
        strengths = sparse.csr_matrix(connectivities, dtype=float)
        strengths.sort_indices()
        self.n = self.lengths.shape[0]
        self.source = np.repeat(np.arange(self.n), np.diff(self.lengths.indptr))
        if np.array_equal(self.lengths.indptr, strengths.indptr) and np.array_equal(
            self.lengths.indices, strengths.indices
        ):
            self.strengths = strengths.data
        else:
            self.strengths = np.asarray(strengths[self.source, self.lengths.indices]).ravel()
        self.is_bridge = on_bridge(self.lengths, bridges)
        self.ends = np.unique(bridges)

    def near(self, cell: int, rng: np.random.Generator) -> int:
        """The cell or one of its neighbours, by the strength of their edge; the cell itself has strength 1."""
        own = slice(self.lengths.indptr[cell], self.lengths.indptr[cell + 1])
        weight = np.append(np.where(self.is_bridge[own], 0.0, self.strengths[own]), 1.0)
        return int(rng.choice(np.append(self.lengths.indices[own], cell), p=weight / weight.sum()))

    def replicate(self, starts: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float64]:
        """Smoothed ways from some starts over drawn cells and edges, (n,)."""
        cells = np.bincount(rng.integers(0, self.n, self.n), minlength=self.n)
        drawn = rng.poisson(1.0, len(self.source))
        for needed in (starts, self.ends):
            cells[needed] = np.maximum(cells[needed], 1)
        drawn[self.is_bridge] = np.maximum(drawn[self.is_bridge], 1)
        # a way may end in a cell that was not drawn without a detour, but not lead on from it
        is_free = (drawn > 0) & (cells > 0)[self.source]
        lengths = np.where(is_free, self.lengths.data, DETOUR * self.lengths.data)
        way = dijkstra(self._graph(lengths), directed=True, indices=starts, min_only=True)
        # as in the estimate: what cannot be reached at all is as far as what is farthest
        way[~np.isfinite(way)] = way[np.isfinite(way)].max()
        return smoothed(way, self._graph(self.strengths * drawn * cells[self.lengths.indices]))

    def _graph(self, values: NDArray[np.float64]) -> sparse.csr_matrix:
        return sparse.csr_matrix((values, self.lengths.indices, self.lengths.indptr), shape=self.lengths.shape)
