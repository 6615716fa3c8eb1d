"""Trees and clusters of plain methods, with exactly as many leaves as asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
from scipy.cluster.hierarchy import linkage

import hdtree_sc as ht
from hdtree_sc.graph._agglomerate import group_means, ward_linkage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Clustered = tuple[ht.Tree, "NDArray[np.object_]"]
"""A tree and the leaf of each cell."""

N_NEIGHBORS = 15
SPACE = "X_space"
TRIES = 40
"""Resolutions tried until Leiden gives the wanted number of clusters."""


def top_of_linkage(merges: NDArray[np.float64], n_leaves: int) -> Clustered:
    """The last merges of a linkage as a tree.

    Parameters
    ----------
    merges
        SciPy's linkage of ``n`` observations, heights not decreasing.
    n_leaves
        Leaves wanted, at most ``n``.

    Returns
    -------
    The tree, and the leaf of each observation.
    """
    n = len(merges) + 1
    first_inner = 2 * n - n_leaves
    holder = np.arange(2 * n - 1)  # the topmost node that is no inner node of the tree, at or above each node
    names, parents, place = [str(2 * n - 2)], [-1], {2 * n - 2: 0}
    for node in range(2 * n - 2, n - 1, -1):
        for child in merges[node - n, :2].astype(int).tolist():
            if node < first_inner:
                holder[child] = holder[node]
            else:
                place[child] = len(names)
                names.append(str(child))
                parents.append(place[node])
    return ht.Tree(names, parents), holder[:n].astype(str).astype(object)


def ward(points: NDArray, n_leaves: int) -> Clustered:
    """Ward's linkage over all cells, cut at a number of leaves."""
    return top_of_linkage(linkage(points, "ward"), n_leaves)


def tree_over(points: NDArray, cluster: NDArray[np.integer], n_leaves: int) -> Clustered:
    """A tree over clusters: Ward on their means, weighted by their cells, the lowest merges undone until it fits.

    Parameters
    ----------
    points
        Positions of the cells.
    cluster
        Cluster of each cell, 0 to m - 1.
    n_leaves
        Leaves wanted, at most m.
    """
    merges = ward_linkage(group_means(points, cluster), np.bincount(cluster))
    tree, leaf_of_cluster = top_of_linkage(merges, n_leaves)
    return tree, leaf_of_cluster[cluster]


def neighbors(points: NDArray) -> ad.AnnData:
    """Cells with scanpy's neighbour graph of some positions, which are in ``obsm[SPACE]``."""
    cells = ad.AnnData(obs={"cell": np.arange(len(points))}, obsm={SPACE: np.asarray(points, dtype=np.float32)})
    # scikit-learn's search: scanpy's own way to pynndescent 0.7 fails from 8,192 cells on
    sc.pp.neighbors(cells, n_neighbors=N_NEIGHBORS, use_rep=SPACE, transformer="sklearn")
    return cells


def leiden_clusters(cells: ad.AnnData, resolution: float, seed: int) -> NDArray[np.int64]:
    """Leiden's clusters of cells with a neighbour graph, numbered from 0."""
    sc.tl.leiden(cells, resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    return cells.obs["leiden"].cat.codes.to_numpy().astype(np.int64)


def leiden(points: NDArray, n_leaves: int, seed: int) -> Clustered:
    """Leiden at the resolution that gives a number of clusters, with a tree over them.

    Where no resolution tried gives the number, the closest larger number is merged down.

    Parameters
    ----------
    points
        Positions of the cells.
    n_leaves
        Clusters wanted.
    seed
        Seed of Leiden.
    """
    cells = neighbors(points)
    low, high = 1e-3, 20.0
    best = leiden_clusters(cells, high, seed)
    for _ in range(TRIES):
        middle = float(np.sqrt(low * high))
        found = leiden_clusters(cells, middle, seed)
        if found.max() + 1 < n_leaves:
            low = middle
            continue
        high = middle
        if found.max() <= best.max():
            best = found
        if found.max() + 1 == n_leaves:
            break
    return tree_over(points, best, min(n_leaves, int(best.max()) + 1))
